// Functions of libtorch that are missing in tch. A function that can fail returns null, or the error message in a
// buffer that the caller frees with mm_free_error. Tensors are passed as at::Tensor*, as tch holds them.

#include "guarded.h"

#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <c10/core/InferenceMode.h>
#include <optional>
#include <string>
#include <vector>

namespace {

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
  return out;
}

} // namespace

extern "C" {

void mm_free_error(char* error) { free(error); }

const char* mm_cpu_capability() {
  static const std::string capability = at::get_cpu_capability();
  return capability.c_str();
}

char* mm_fused_adamw(
    at::Tensor* const* parameters, at::Tensor* const* gradients, at::Tensor* const* first_moments,
    at::Tensor* const* second_moments, size_t count, int64_t step, const at::Tensor* gradient_divisor,
    double lr, double beta1, double beta2, double weight_decay, double eps) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto p = list(parameters, count), g = list(gradients, count), m = list(first_moments, count),
         v = list(second_moments, count);
    if (p.empty()) return;
    std::vector<at::Tensor> s(count, at::full({}, static_cast<double>(step), p[0].options().dtype(at::kFloat)));
    std::optional<at::Tensor> divisor;
    if (gradient_divisor != nullptr) divisor = *gradient_divisor;
    at::_fused_adamw_(
        p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false, divisor);
  });
}

void mm_clear_gradient(at::Tensor* tensor) { tensor->mutable_grad().reset(); }

void* mm_inference_mode_enter() { return new c10::InferenceMode(true); }
void mm_inference_mode_leave(void* guard) { delete static_cast<c10::InferenceMode*>(guard); }

void mm_autocast_enter(int device, bool enabled, bool* was_enabled, int* was_dtype) {
  auto type = static_cast<at::DeviceType>(device);
  *was_enabled = at::autocast::is_autocast_enabled(type);
  *was_dtype = static_cast<int>(at::autocast::get_autocast_dtype(type));
  at::autocast::set_autocast_enabled(type, enabled);
  at::autocast::set_autocast_dtype(type, at::kBFloat16);
  at::autocast::increment_nesting();
}
void mm_autocast_leave(int device, bool was_enabled, int was_dtype) {
  auto type = static_cast<at::DeviceType>(device);
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(type, was_enabled);
  at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(was_dtype));
}

char* mm_pack_linear(const at::Tensor* weight, at::Tensor** out) {
  return guarded([&] {
    static auto op = c10::Dispatcher::singleton()
                         .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                         .typed<at::Tensor(const at::Tensor&, std::optional<int64_t>)>();
    *out = new at::Tensor(op.call(*weight, std::nullopt));
  });
}

char* mm_packed_linear(
    const at::Tensor* input, const at::Tensor* weight, const at::Tensor* bias, const char* post, const char* algorithm,
    at::Tensor** out) {
  return guarded([&] {
    static auto op = c10::Dispatcher::singleton()
                         .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                         .typed<at::Tensor(
                             const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                             c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>();
    std::optional<at::Tensor> maybe_bias;
    if (bias != nullptr) maybe_bias = *bias;
    *out = new at::Tensor(op.call(*input, *weight, maybe_bias, post, c10::List<std::optional<at::Scalar>>(), algorithm));
  });
}

} // extern "C"
