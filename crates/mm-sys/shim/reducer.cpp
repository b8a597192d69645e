// Gradients averaged over the processes in buckets, each sent as soon as the backward pass has filled it.

#include "c10d.h"
#include "guarded.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <algorithm>
#include <memory>
#include <mutex>

namespace {

using Clock = std::chrono::steady_clock;

struct Bucket {
  std::vector<size_t> members;
  // The members' gradients, one after the other, and for each how many processes had one.
  at::Tensor flat;
  std::vector<at::Tensor> views;
  size_t missing = 0;
  c10::intrusive_ptr<c10d::Work> work;
};

} // namespace

struct MmReducer : std::enable_shared_from_this<MmReducer> {
  c10::intrusive_ptr<c10d::Backend> backend;
  std::vector<at::Tensor> parameters;
  std::vector<Bucket> buckets;
  std::vector<std::pair<size_t, size_t>> place; // of each parameter: its bucket, and where in it
  std::vector<bool> is_filled;
  std::vector<size_t> arrival; // the parameters in the order in which their gradients became ready
  size_t next = 0; // buckets are sent in one order, which is the same in every process
  bool is_armed = false;
  std::exception_ptr failure; // of a collective within the backward pass
  Clock::time_point first_sent;
  std::mutex mutex; // hooks run on the device's thread

  struct Hook : torch::autograd::PostAccumulateGradHook {
    std::weak_ptr<MmReducer> reducer;
    size_t index;
    Hook(std::weak_ptr<MmReducer> reducer, size_t index) : reducer(std::move(reducer)), index(index) {}
    void operator()(const at::Tensor&) override {
      if (auto alive = reducer.lock()) alive->gradient_came(index);
    }
  };

  void watch() {
    for (size_t i = 0; i < parameters.size(); ++i) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameters[i], std::make_unique<Hook>(weak_from_this(), i));
    }
  }

  void lay_out(const std::vector<size_t>& order, size_t bytes) {
    buckets.clear();
    place.assign(parameters.size(), {0, 0});
    size_t held = 0;
    for (size_t index : order) {
      auto& parameter = parameters[index];
      bool fits = !buckets.empty() && held + parameter.nbytes() <= bytes &&
          parameters[buckets.back().members[0]].options().type_equal(parameter.options());
      if (!fits) {
        buckets.emplace_back();
        held = 0;
      }
      place[index] = {buckets.size() - 1, buckets.back().members.size()};
      buckets.back().members.push_back(index);
      held += parameter.nbytes();
    }
    for (auto& bucket : buckets) {
      int64_t count = 0, offset = 0;
      for (size_t index : bucket.members) count += parameters[index].numel();
      auto options = parameters[bucket.members[0]].options().requires_grad(false);
      bucket.flat = at::zeros({count + static_cast<int64_t>(bucket.members.size())}, options);
      for (size_t index : bucket.members) {
        bucket.views.push_back(bucket.flat.narrow(0, offset, parameters[index].numel()).view(parameters[index].sizes()));
        offset += parameters[index].numel();
      }
    }
  }

  at::Tensor flags(const Bucket& bucket) {
    auto count = static_cast<int64_t>(bucket.members.size());
    return bucket.flat.narrow(0, bucket.flat.numel() - count, count);
  }

  void arm() {
    std::lock_guard<std::mutex> lock(mutex);
    is_armed = true;
    next = 0;
    failure = nullptr;
    is_filled.assign(parameters.size(), false);
    arrival.clear();
    for (auto& bucket : buckets) {
      bucket.missing = bucket.members.size();
      bucket.work = nullptr;
      flags(bucket).fill_(1);
    }
  }

  void gradient_came(size_t index) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!is_armed) return;
    TORCH_CHECK(!is_filled[index], "a parameter's gradient came twice in one backward pass; it was averaged already");
    arrival.push_back(index);
    fill(index);
    while (!failure && next < buckets.size() && buckets[next].missing == 0) send();
  }

  // Moves a gradient into its bucket, divided: the sum over the processes is then their mean.
  void fill(size_t index) {
    auto [bucket, member] = place[index];
    auto& view = buckets[bucket].views[member];
    auto& gradient = parameters[index].mutable_grad();
    if (gradient.defined()) {
      at::mul_out(view, gradient.detach(), at::Scalar(1.0 / backend->getSize()));
    } else {
      view.zero_();
      flags(buckets[bucket])[static_cast<int64_t>(member)].zero_();
    }
    gradient = view;
    is_filled[index] = true;
    buckets[bucket].missing -= 1;
  }

  void send() {
    if (next == 0) first_sent = Clock::now();
    try {
      buckets[next].work = collective([&] { return start_all_reduce(*backend, buckets[next].flat, c10d::ReduceOp::SUM); });
    } catch (...) {
      failure = std::current_exception(); // reported at the end, where the caller checks for it
    }
    next += 1;
  }

  // Sends the buckets that the backward pass did not fill, waits for all, and writes each mean to its parameter.
  // Returns the parameters without a gradient in any process, the time spent waiting, and the time since the first
  // bucket was sent.
  void finish(bool* unused, double* waited, double* sending) {
    at::NoGradGuard no_grad;
    std::lock_guard<std::mutex> lock(mutex);
    is_armed = false;
    auto begun = Clock::now();
    while (!failure && next < buckets.size()) {
      for (size_t index : buckets[next].members) {
        if (!is_filled[index]) fill(index);
      }
      send();
    }
    if (failure) std::rethrow_exception(failure);
    std::vector<at::Tensor> counts;
    for (auto& bucket : buckets) {
      collective([&] { bucket.work->wait(); });
      bucket.work = nullptr;
      counts.push_back(flags(bucket).to(at::kFloat));
    }
    auto ended = Clock::now();
    *waited = std::chrono::duration<double>(ended - begun).count();
    *sending = buckets.empty() ? 0.0 : std::chrono::duration<double>(ended - first_sent).count();
    if (counts.empty()) return;
    auto all = at::cat(counts).cpu();
    const float* count = all.const_data_ptr<float>();
    for (auto& bucket : buckets) {
      for (size_t index : bucket.members) {
        unused[index] = *count++ == 0;
        if (unused[index]) parameters[index].mutable_grad().reset();
      }
    }
  }
};

extern "C" {

char* mm_reducer_new(
    MmProcessGroup* group, at::Tensor* const* parameters, const size_t* order, size_t count, size_t bucket_bytes,
    std::shared_ptr<MmReducer>** out) {
  return guarded([&] {
    auto reducer = std::make_shared<MmReducer>();
    reducer->backend = group->backend;
    for (size_t i = 0; i < count; ++i) reducer->parameters.push_back(*parameters[i]);
    reducer->lay_out(std::vector<size_t>(order, order + count), bucket_bytes);
    reducer->watch();
    *out = new std::shared_ptr<MmReducer>(std::move(reducer));
  });
}
void mm_reducer_free(std::shared_ptr<MmReducer>* reducer) { delete reducer; }

void mm_reducer_arm(std::shared_ptr<MmReducer>* reducer) { (*reducer)->arm(); }

char* mm_reducer_finish(std::shared_ptr<MmReducer>* reducer, bool* unused, double* waited, double* sending) {
  return guarded([&] { (*reducer)->finish(unused, waited, sending); });
}

// The parameters in the order in which their gradients became ready in the last backward pass; those without one last.
void mm_reducer_arrival(std::shared_ptr<MmReducer>* reducer, size_t* order) {
  auto& known = **reducer;
  std::vector<bool> came(known.parameters.size(), false);
  size_t at = 0;
  for (size_t index : known.arrival) {
    order[at++] = index;
    came[index] = true;
  }
  for (size_t index = 0; index < came.size(); ++index) {
    if (!came[index]) order[at++] = index;
  }
}

char* mm_reducer_lay_out(std::shared_ptr<MmReducer>* reducer, const size_t* order, size_t bucket_bytes) {
  return guarded([&] {
    auto& known = **reducer;
    known.lay_out(std::vector<size_t>(order, order + known.parameters.size()), bucket_bytes);
  });
}

} // extern "C"
