// Convolutions with weights laid out once for oneDNN, and group normalization with SiLU in one pass.

#include "guarded.h"
#include "levels.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace {

at::Tensor call(const char* name, const char* overload, torch::jit::Stack stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).callBoxed(&stack);
  return stack.at(0).toTensor();
}

c10::IValue pair(int64_t value) { return std::vector<int64_t>{value, value}; }

c10::IValue maybe(const at::Tensor* tensor) { return tensor == nullptr ? c10::IValue() : c10::IValue(*tensor); }

c10::IValue no_scalars() { return c10::List<std::optional<at::Scalar>>(); }

// exp for the loops below, which the compiler vectorizes: Cody and Waite's reduction and a polynomial, to 2 ulp.
__attribute__((always_inline)) inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float shifted = x * 1.44269504f + 12582912.0f;  // round to nearest in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const int32_t exponent = (std::bit_cast<int32_t>(shifted) - 0x4b400000 + 127) << 23;
  return y * std::bit_cast<float>(exponent);
}

// The sums of x - first and of its square, for each channel of `rows` rows.
template <typename T>
__attribute__((always_inline)) inline void moments_of(const T* x, int64_t rows, int64_t channels, float* sum, float* square) {
  for (int64_t c = 0; c < channels; ++c) sum[c] = square[c] = 0;
  for (int64_t row = 1; row < rows; ++row) {
    const T* from = x + row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float d = static_cast<float>(from[c]) - static_cast<float>(x[c]);
      sum[c] += d;
      square[c] += d * d;
    }
  }
}

MM_FOR_EACH_LEVEL
void moments(const float* x, int64_t rows, int64_t channels, float* sum, float* square) {
  moments_of(x, rows, channels, sum, square);
}

MM_FOR_EACH_LEVEL
void moments(const c10::BFloat16* x, int64_t rows, int64_t channels, float* sum, float* square) {
  moments_of(x, rows, channels, sum, square);
}

template <typename T>
__attribute__((always_inline)) inline void normalize_to(
    const T* x, int64_t rows, int64_t channels, const float* factor, const float* term, bool silu, T* y) {
  for (int64_t row = 0; row < rows; ++row, x += channels, y += channels) {
    if (silu) {
      for (int64_t c = 0; c < channels; ++c) {
        const float v = static_cast<float>(x[c]) * factor[c] + term[c];
        y[c] = v / (1.0f + exponential(-v));
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) y[c] = static_cast<float>(x[c]) * factor[c] + term[c];
    }
  }
}

MM_FOR_EACH_LEVEL
void normalize(
    const float* x, int64_t rows, int64_t channels, const float* factor, const float* term, bool silu, float* y) {
  normalize_to(x, rows, channels, factor, term, silu, y);
}

MM_FOR_EACH_LEVEL
void normalize(
    const c10::BFloat16* x, int64_t rows, int64_t channels, const float* factor, const float* term, bool silu,
    c10::BFloat16* y) {
  normalize_to(x, rows, channels, factor, term, silu, y);
}

// Mean and sum of squared deviations of some numbers, joined as Chan et al. (1979) do.
struct Moments {
  double count = 0, mean = 0, deviation = 0;

  void add(double other_count, double other_mean, double other_deviation) {
    const double total = count + other_count, difference = other_mean - mean;
    mean += difference * other_count / total;
    deviation += other_deviation + difference * difference * count * other_count / total;
    count = total;
  }
};

// Numbers of a block of rows: they stay in the cache, and blocks are the same for any number of threads.
constexpr int64_t BLOCK = 1 << 15;

template <typename T>
at::Tensor group_norm(
    const at::Tensor& x, int64_t groups, const float* weight, const float* bias, double eps, bool silu) {
  at::Tensor y = at::empty_like(x);
  const int64_t batch = x.size(0), channels = x.size(1), rows = x.size(2) * x.size(3);
  const int64_t in_block = std::max<int64_t>(2, BLOCK / channels), blocks = (rows + in_block - 1) / in_block;
  const T* from = x.const_data_ptr<T>();
  T* to = y.mutable_data_ptr<T>();
  std::vector<float> sums(2 * batch * blocks * channels);
  auto rows_of = [&](int64_t block) { return std::min(in_block, rows - block * in_block); };
  auto start_of = [&](int64_t item, int64_t block) { return (item * rows + block * in_block) * channels; };
  at::parallel_for(0, batch * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* sum = sums.data() + 2 * i * channels;
      moments(from + start_of(i / blocks, i % blocks), rows_of(i % blocks), channels, sum, sum + channels);
    }
  });
  std::vector<float> factors(2 * batch * channels);
  const int64_t in_group = channels / groups;
  at::parallel_for(0, batch * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t item = i / groups, first = i % groups * in_group;
      Moments all;
      for (int64_t block = 0; block < blocks; ++block) {
        const float* sum = sums.data() + 2 * (item * blocks + block) * channels;
        const T* shift = from + start_of(item, block);
        const double count = rows_of(block);
        for (int64_t c = first; c < first + in_group; ++c) {
          const double mean = sum[c] / count;
          all.add(count, static_cast<float>(shift[c]) + mean, std::max(0.0, sum[channels + c] - sum[c] * mean));
        }
      }
      const double scale = 1 / std::sqrt(all.deviation / all.count + eps);
      float* factor = factors.data() + 2 * item * channels;
      for (int64_t c = first; c < first + in_group; ++c) {
        factor[c] = static_cast<float>(scale * weight[c]);
        factor[channels + c] = static_cast<float>(bias[c] - all.mean * scale * weight[c]);
      }
    }
  });
  at::parallel_for(0, batch * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* factor = factors.data() + 2 * (i / blocks) * channels;
      const int64_t start = start_of(i / blocks, i % blocks);
      normalize(from + start, rows_of(i % blocks), channels, factor, factor + channels, silu, to + start);
    }
  });
  return y;
}

} // namespace

extern "C" {

char* mm_pack_conv(
    const at::Tensor* weight, int64_t stride, int64_t padding, const int64_t* input_size, at::Tensor** out) {
  return guarded([&] {
    c10::IValue size = input_size == nullptr ? c10::IValue() : std::vector<int64_t>(input_size, input_size + 4);
    *out = new at::Tensor(call(
        "mkldnn::_reorder_convolution_weight", "", {*weight, pair(padding), pair(stride), pair(1), int64_t{1}, size}));
  });
}

// The convolution, with `post` applied, or with `other` added to it.
char* mm_packed_conv(
    const at::Tensor* input, const at::Tensor* weight, const at::Tensor* bias, const at::Tensor* other, int64_t stride,
    int64_t padding, const char* post, at::Tensor** out) {
  return guarded([&] {
    torch::jit::Stack stack;
    if (other != nullptr) {
      stack = {*input,     *other,             *weight,          maybe(bias),   pair(padding), pair(stride), pair(1),
               int64_t{1}, std::string("add"), c10::IValue(1.0), c10::IValue(), no_scalars(),  c10::IValue()};
      *out = new at::Tensor(call("mkldnn::_convolution_pointwise", "binary", std::move(stack)));
      return;
    }
    stack = {*input,     *weight,          maybe(bias),  pair(padding), pair(stride), pair(1),
             int64_t{1}, std::string(post), no_scalars(), std::string()};
    *out = new at::Tensor(call("mkldnn::_convolution_pointwise", "", std::move(stack)));
  });
}

char* mm_group_norm(
    const at::Tensor* x, int64_t groups, const at::Tensor* weight, const at::Tensor* bias, double eps, bool silu,
    at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(
        x->is_cpu() && x->dim() == 4 && x->is_contiguous(at::MemoryFormat::ChannelsLast),
        "this group norm is of channels-last [B, C, H, W] on the CPU");
    TORCH_CHECK(
        weight->scalar_type() == at::kFloat && bias->scalar_type() == at::kFloat && weight->is_contiguous() &&
            bias->is_contiguous() && weight->numel() == x->size(1) && bias->numel() == x->size(1) &&
            x->size(1) % groups == 0,
        "a group norm of ", x->size(1), " channels in ", groups, " groups has a weight and a bias of each in f32");
    const float* w = weight->const_data_ptr<float>();
    const float* b = bias->const_data_ptr<float>();
    switch (x->scalar_type()) {
      case at::kFloat: *out = new at::Tensor(group_norm<float>(*x, groups, w, b, eps, silu)); break;
      case at::kBFloat16: *out = new at::Tensor(group_norm<c10::BFloat16>(*x, groups, w, b, eps, silu)); break;
      default: TORCH_CHECK(false, "this group norm is of f32 and bf16, not of ", x->toString());
    }
  });
}

} // extern "C"
