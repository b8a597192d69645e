// Nodes of the autograd graph whose backward is not a formula: gradients that are known already, and a part of the forward pass that is
// run again. And the state of the generators, which the second needs.

#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <utility>
#include <vector>

namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

struct KnownGradients : Node {
  variable_list gradients; // undefined where the input needs none

  std::string name() const override { return "KnownGradients"; }

  variable_list apply(variable_list&& incoming) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!at::GradMode::is_enabled(), "this loss brings its first derivatives with it and has no second ones");
    TORCH_CHECK(
        !gradients.empty(),
        "the gradients of this loss were used up by its first backward pass: compute the loss again for another");
    variable_list known = std::exchange(gradients, {});
    for (at::Tensor& gradient : known) {
      if (!gradient.defined()) continue;
      if (incoming[0].defined())
        gradient.mul_(incoming[0]);
      else
        gradient.reset();
    }
    return known;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    gradients.clear();
  }
};

} // namespace

extern "C" {

bool mm_grad_mode() { return at::GradMode::is_enabled(); }

char* mm_scalar_with_gradients(
    const at::Tensor* value, at::Tensor* const* inputs, at::Tensor* const* gradients, size_t count, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(value->numel() == 1, "a loss is one number, not ", value->sizes());
    variable_list of, known;
    bool any = false;
    for (size_t i = 0; i < count; ++i) {
      TORCH_CHECK(
          inputs[i]->sizes() == gradients[i]->sizes(), "a gradient ", gradients[i]->sizes(), " for an input ",
          inputs[i]->sizes());
      bool needed = at::GradMode::is_enabled() && inputs[i]->requires_grad();
      any = any || needed;
      of.push_back(*inputs[i]);
      known.push_back(needed ? gradients[i]->detach() : at::Tensor());
    }
    at::Tensor result = value->detach();
    if (any) {
      auto node = c10::make_intrusive<KnownGradients>();
      node->set_next_edges(torch::autograd::collect_next_edges(of));
      node->gradients = std::move(known);
      torch::autograd::set_history(result, node);
    }
    *out = new at::Tensor(std::move(result));
  });
}

} // extern "C"
