// Nodes of the autograd graph without a formula for backward: known gradients, and gradient checkpointing. And the
// state of the generators, which checkpointing needs.

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

at::Device device(int type, int index) {
  return {static_cast<at::DeviceType>(type), static_cast<at::DeviceIndex>(index)};
}

const at::Generator& generator(at::Device device) { return at::globalContext().defaultGenerator(device); }

at::Tensor generator_state(at::Device device) {
  at::Generator of = generator(device);
  std::lock_guard<std::mutex> lock(of.mutex());
  return of.get_state();
}

void set_generator_state(at::Device device, const at::Tensor& state) {
  at::Generator of = generator(device);
  std::lock_guard<std::mutex> lock(of.mutex());
  of.set_state(state);
}

// The generator and autocast state of a Rust function: saved before its first run, restored for the second.
struct Surroundings {
  at::Device device;
  std::vector<std::pair<at::Device, at::Tensor>> generators;
  bool autocast;
  at::ScalarType autocast_type;

  explicit Surroundings(at::Device device)
      : device(device),
        autocast(at::autocast::is_autocast_enabled(device.type())),
        autocast_type(at::autocast::get_autocast_dtype(device.type())) {
    generators.emplace_back(at::kCPU, generator_state(at::kCPU));
    if (!device.is_cpu()) generators.emplace_back(device, generator_state(device));
  }

  void restore() const {
    for (const auto& [of, state] : generators) set_generator_state(of, state);
    at::autocast::set_autocast_enabled(device.type(), autocast);
    at::autocast::set_autocast_dtype(device.type(), autocast_type);
  }
};

// Autocast caches the bf16 copy of a weight for the rest of its region: memory that checkpointing saves.
struct NoAutocastCache {
  bool was_enabled = at::autocast::is_autocast_cache_enabled();
  NoAutocastCache() { at::autocast::set_autocast_cache_enabled(false); }
  ~NoAutocastCache() { at::autocast::set_autocast_cache_enabled(was_enabled); }
};

// A Rust function: `run` returns a new tensor, or null after passing the reason to mm_tell_failure.
using Run = at::Tensor* (*)(void* context, const at::Tensor* input, std::string* failure);
using Drop = void (*)(void* context);

struct Body {
  void* context;
  Run run;
  Drop drop;

  Body(void* context, Run run, Drop drop) : context(context), run(run), drop(drop) {}
  Body(const Body&) = delete;
  ~Body() { drop(context); }

  at::Tensor operator()(const at::Tensor& input) const {
    NoAutocastCache no_cache;
    std::string failure;
    std::unique_ptr<at::Tensor> output(run(context, &input, &failure));
    TORCH_CHECK(output != nullptr, failure);
    return std::move(*output);
  }
};

struct Checkpoint : Node {
  std::unique_ptr<Body> body;
  torch::autograd::SavedVariable input;
  Surroundings surroundings;

  Checkpoint(std::unique_ptr<Body> body, const at::Tensor& input, Surroundings surroundings)
      : body(std::move(body)), input(input, /*is_output=*/false), surroundings(std::move(surroundings)) {}

  std::string name() const override { return "Checkpoint"; }

  variable_list apply(variable_list&& incoming) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!at::GradMode::is_enabled(), "what is checkpointed has no second derivatives");
    TORCH_CHECK(body != nullptr, torch::autograd::ERR_BACKWARD_TWICE);
    // The leaves of the second graph get their gradients from a separate backward pass, without a choice of inputs.
    TORCH_CHECK(
        torch::autograd::Engine::get_default_engine().is_checkpoint_valid(),
        "gradients of chosen inputs alone cannot pass what is checkpointed: run the whole backward pass, or switch gradient "
        "checkpointing off");
    if (!incoming[0].defined()) return {at::Tensor()};
    at::Tensor leaf = input.unpack().detach();
    if (task_should_compute_output(0)) leaf.set_requires_grad(true);
    at::Tensor output = again(leaf);
    torch::autograd::backward({std::move(output)}, {std::move(incoming[0])});
    return {std::exchange(leaf.mutable_grad(), {})};
  }

  at::Tensor again(const at::Tensor& leaf) const {
    Surroundings now(surroundings.device);
    struct Restore {
      const Surroundings& now;
      ~Restore() { now.restore(); }
    } restore{now};
    surroundings.restore();
    at::AutoGradMode with_graph(true);
    return (*body)(leaf);
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    body.reset();
    input.reset_data();
  }
};

} // namespace

extern "C" {

void mm_tell_failure(std::string* failure, const char* bytes, size_t length) { failure->assign(bytes, length); }

// Takes ownership of the function, also on failure. Its graph is dropped and rebuilt in backward; its output requires a
// gradient if the graph did, so that the parameters inside need not be listed.
char* mm_checkpointed(const at::Tensor* input, void* context, Run run, Drop drop, at::Tensor** out) {
  return guarded([&] {
    auto body = std::make_unique<Body>(context, run, drop);
    Surroundings surroundings(input->device());
    at::Tensor output = (*body)(*input);
    if (output.requires_grad() && at::GradMode::is_enabled()) {
      auto node = c10::make_intrusive<Checkpoint>(std::move(body), *input, std::move(surroundings));
      node->set_next_edges(torch::autograd::collect_next_edges(*input));
      output = output.detach();
      torch::autograd::set_history(output, node);
    }
    *out = new at::Tensor(std::move(output));
  });
}

char* mm_generator_state(int type, int index, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(generator_state(device(type, index))); });
}

char* mm_set_generator_state(int type, int index, const at::Tensor* state) {
  return guarded([&] { set_generator_state(device(type, index), *state); });
}

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
