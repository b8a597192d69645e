// Dropout whose mask is a function of a seed and the position of an element, computed in both passes and stored in
// neither. libtorch's draws from a generator that is serial.

#include "guarded.h"
#include "levels.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <mutex>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

namespace {

// The elements whose random numbers are drawn at once.
constexpr int64_t BLOCK = 1024;

// SplitMix64 (Steele et al. 2014), of which a number serves two elements.
MM_FOR_EACH_LEVEL
void draw(uint64_t seed, uint64_t first, uint64_t* numbers) {
  for (uint64_t i = 0; i < BLOCK / 2; ++i) {
    uint64_t z = seed + (first + i) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    numbers[i] = z ^ (z >> 31);
  }
}

MM_FOR_EACH_LEVEL
void scale(const float* x, const uint32_t* numbers, int64_t count, uint32_t least, float factor, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * (numbers[i] >= least ? factor : 0.0f);
}

MM_FOR_EACH_LEVEL
void scale(
    const c10::BFloat16* x, const uint32_t* numbers, int64_t count, uint32_t least, float factor, c10::BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = static_cast<float>(x[i]) * (numbers[i] >= least ? factor : 0.0f);
}

template <typename T>
at::Tensor apply_mask(const at::Tensor& input, double probability, uint64_t seed) {
  at::Tensor x = input.contiguous(), y = at::empty_like(x);
  const T* from = x.const_data_ptr<T>();
  T* to = y.mutable_data_ptr<T>();
  const int64_t count = x.numel();
  const auto least = static_cast<uint32_t>(std::lround(probability * 0x1p32));
  const auto factor = static_cast<float>(1 / (1 - probability));
  at::parallel_for(0, (count + BLOCK - 1) / BLOCK, 16, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      std::array<uint64_t, BLOCK / 2> numbers;
      draw(seed, block * (BLOCK / 2), numbers.data());
      auto of_elements = std::bit_cast<std::array<uint32_t, BLOCK>>(numbers);
      int64_t first = block * BLOCK;
      scale(from + first, of_elements.data(), std::min(BLOCK, count - first), least, factor, to + first);
    }
  });
  return y;
}

at::Tensor dropout(const at::Tensor& x, double probability, uint64_t seed);

struct DropoutBackward : torch::autograd::Node {
  double probability;
  uint64_t seed;

  DropoutBackward(double probability, uint64_t seed) : probability(probability), seed(seed) {}

  std::string name() const override { return "DropoutBackward"; }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& incoming) override {
    if (!incoming[0].defined()) return {at::Tensor()};
    return {dropout(incoming[0], probability, seed)};
  }
};

at::Tensor dropout(const at::Tensor& x, double probability, uint64_t seed) {
  at::Tensor input = x.detach();
  at::Tensor y = input.scalar_type() == at::kBFloat16 ? apply_mask<c10::BFloat16>(input, probability, seed)
                                                      : apply_mask<float>(input, probability, seed);
  if (at::GradMode::is_enabled() && x.requires_grad()) {
    auto node = c10::make_intrusive<DropoutBackward>(probability, seed);
    node->set_next_edges(torch::autograd::collect_next_edges(x));
    torch::autograd::set_history(y, node);
  }
  return y;
}

uint64_t draw_seed() {
  auto* generator = at::get_generator_or_default<at::CPUGeneratorImpl>(std::nullopt, at::detail::getDefaultCPUGenerator());
  std::lock_guard<std::mutex> lock(generator->mutex_);
  return generator->random64();
}

} // namespace

extern "C" {

char* mm_dropout(const at::Tensor* x, double probability, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(probability >= 0 && probability < 1, "the probability of dropout is ", probability);
    TORCH_CHECK(
        x->is_cpu() && (x->scalar_type() == at::kFloat || x->scalar_type() == at::kBFloat16),
        "this dropout is of f32 and bf16 on the CPU, not of ", x->toString());
    *out = new at::Tensor(dropout(*x, probability, draw_seed()));
  });
}

} // extern "C"
