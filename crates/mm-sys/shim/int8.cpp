// Linear layers in int8: rows of activations are quantized dynamically, each on its own, and multiplied by oneDNN.
// Loops are written for the compiler to vectorize, once for each instruction set.

#include "guarded.h"
#include "levels.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

namespace {

// Floats as integers in the same order, so that least and greatest need no care for NaN: it lies beyond the infinities.
inline int32_t ordered(int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

MM_FOR_EACH_LEVEL
void bounds(const int32_t* bits, int64_t width, int32_t* least, int32_t* greatest) {
  int32_t low = std::numeric_limits<int32_t>::max(), high = std::numeric_limits<int32_t>::min();
  for (int64_t i = 0; i < width; ++i) {
    int32_t value = ordered(bits[i]);
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  *least = low;
  *greatest = high;
}

MM_FOR_EACH_LEVEL
void quantise(const float* x, int64_t width, float low, float per_step, uint8_t* q) {
  for (int64_t i = 0; i < width; ++i) q[i] = static_cast<uint8_t>(static_cast<int32_t>((x[i] - low) * per_step + 0.5f));
}

MM_FOR_EACH_LEVEL
void restore(float* y, const float* sums, const float* bias, int64_t width, float step, float low) {
  for (int64_t i = 0; i < width; ++i) y[i] = step * y[i] + low * sums[i] + bias[i];
}

// At least as many elements as are worth a thread.
constexpr int64_t GRAIN = 1 << 14;

} // namespace

extern "C" {

char* mm_pack_int8(const at::Tensor* weight, at::Tensor** out) {
  return guarded([&] {
    static auto op = c10::Dispatcher::singleton()
                         .findSchemaOrThrow("onednn::qlinear_prepack", "")
                         .typed<at::Tensor(at::Tensor, std::optional<c10::List<int64_t>>)>();
    *out = new at::Tensor(op.call(*weight, std::nullopt));
  });
}

// x [rows, in] f32; weight, packed, [out, in]; scales, sums, bias [out] f32; zero_points [out] i64, zeros.
// A row of x is low + step * q with q in 0..=levels, so x W^T = step * (q W^T) + low * (the sum of W's rows).
char* mm_int8_linear(
    const at::Tensor* x, const at::Tensor* weight, const at::Tensor* scales, const at::Tensor* zero_points,
    const at::Tensor* sums, const at::Tensor* bias, int levels, at::Tensor** out) {
  return guarded([&] {
    static auto op = c10::Dispatcher::singleton()
                         .findSchemaOrThrow("onednn::qlinear_pointwise", "")
                         .typed<at::Tensor(
                             at::Tensor, double, int64_t, at::Tensor, at::Tensor, at::Tensor, std::optional<at::Tensor>,
                             double, int64_t, std::optional<c10::ScalarType>, std::string_view,
                             c10::List<std::optional<at::Scalar>>, std::string_view)>();
    const int64_t rows = x->size(0), width = x->size(1), out_width = scales->numel();
    at::Tensor q = at::empty({rows, width}, x->options().dtype(at::kByte));
    std::vector<float> lows(rows), steps(rows);
    const float* from = x->const_data_ptr<float>();
    uint8_t* to = q.mutable_data_ptr<uint8_t>();
    at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* source = from + row * width;
        int32_t least, greatest;
        bounds(reinterpret_cast<const int32_t*>(source), width, &least, &greatest);
        float low = std::bit_cast<float>(ordered(least)), high = std::bit_cast<float>(ordered(greatest));
        float step = (high - low) / static_cast<float>(levels);
        if (!std::isfinite(step)) { // NaN and infinity stay, and are not integers
          lows[row] = steps[row] = std::numeric_limits<float>::quiet_NaN();
          std::fill_n(to + row * width, width, uint8_t{0});
          continue;
        }
        lows[row] = low;
        steps[row] = step;
        quantise(source, width, low, step > 0 ? 1 / step : 0, to + row * width);
      }
    });
    at::Tensor y = op.call(
        q, 1.0, 0, *weight, *scales, *zero_points, std::nullopt, 1.0, 0, at::kFloat, "none",
        c10::List<std::optional<at::Scalar>>(), "");
    float* result = y.mutable_data_ptr<float>();
    const float *sum = sums->const_data_ptr<float>(), *add = bias->const_data_ptr<float>();
    at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / out_width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        restore(result + row * out_width, sum, add, out_width, steps[row], lows[row]);
    });
    *out = new at::Tensor(std::move(y));
  });
}

} // extern "C"
