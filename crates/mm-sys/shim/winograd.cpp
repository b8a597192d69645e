// 3 x 3 convolutions of channels-last images by Winograd's F(4x4, 3x3) (Lavin & Gray 2016): 36 multiplications for
// 16 outputs in place of 144. oneDNN has this form for no x86 processor.
//
// Weights are stored as they are and transformed on the way, a part that fits the cache at a time: transformed, they
// take four times the memory. Products are of f32, also for weights and images in bf16, and still faster than
// direct products of bf16 without AMX.

#include "guarded.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

namespace {

// Outputs, and inputs, whose transformed weights are in the cache at once.
constexpr int64_t PANEL = 32, BLOCK = 64;
// Channels are a multiple of it.
constexpr int64_t MULTIPLE = 16;
// Tiles of 4 x 4 outputs that are multiplied with them, a multiple of the rows of all levels.
constexpr int64_t TILES = 96, TILE_MULTIPLE = 12;
// Floats of transformed tiles that stay in the outer cache.
constexpr int64_t TRANSFORMED = 4 << 20;
// Floats between the parts of a buffer, so that they do not share their places in the inner cache.
constexpr int64_t GAP = 16;

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MM_WINOGRAD

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define LEVEL Level4
#define WIDTH 16
#define ROWS 12
#include "winograd_kernels.h"
#undef LEVEL
#undef WIDTH
#undef ROWS
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define LEVEL Level3
#define WIDTH 8
#define ROWS 6
#include "winograd_kernels.h"
#pragma GCC pop_options

int64_t divided_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// The tiles of 4 x 4 outputs of a batch. The input has the output's size, or, `doubled`, half of it.
struct Grid {
  int64_t height, width, rows, columns, doubled;

  Grid(int64_t height, int64_t width, bool doubled)
      : height(height << doubled), width(width << doubled), rows(divided_up(this->height, 4)),
        columns(divided_up(this->width, 4)), doubled(doubled) {}

  int64_t in_image() const { return rows * columns; }

  // The place of pixel (i, j), counted from the corner, of a tile of an output, or -1 outside.
  int64_t output(int64_t tile, int64_t i, int64_t j) const {
    const int64_t image = tile / in_image(), place = tile % in_image();
    const int64_t y = 4 * (place / columns) + i, x = 4 * (place % columns) + j;
    return y < 0 || y >= height || x < 0 || x >= width ? -1 : (image * height + y) * width + x;
  }

  // The same of an input.
  int64_t input(int64_t tile, int64_t i, int64_t j) const {
    const int64_t image = tile / in_image(), place = tile % in_image();
    const int64_t y = 4 * (place / columns) + i - 1, x = 4 * (place % columns) + j - 1;
    if (y < 0 || y >= height || x < 0 || x >= width) return -1;
    return ((image * (height >> doubled)) + (y >> doubled)) * (width >> doubled) + (x >> doubled);
  }
};

template <typename Level, typename T>
at::Tensor winograd(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor* other, bool doubled) {
  const int64_t batch = x.size(0), input = x.size(1), panels = weight.size(0), output = panels * PANEL;
  const Grid grid(x.size(2), x.size(3), doubled);
  at::Tensor y = at::empty(
      {batch, output, grid.height, grid.width}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const int64_t blocks = divided_up(input, BLOCK), total = batch * grid.in_image();
  // All tiles in passes of equal size, whose transforms fit the outer cache, and a pass in groups.
  const int64_t at_once = std::max(TILE_MULTIPLE, TRANSFORMED / (36 * BLOCK * blocks));
  const int64_t in_pass = divided_up(total, divided_up(total, at_once));
  const int64_t groups = divided_up(in_pass, TILES);
  const int64_t in_group = std::min(total, divided_up(divided_up(in_pass, groups), TILE_MULTIPLE) * TILE_MULTIPLE);
  const int64_t input_stride = in_group * BLOCK + GAP, weight_stride = BLOCK * PANEL + GAP;
  const int64_t sum_stride = in_group * PANEL + GAP;

  const std::unique_ptr<float[]> transformed(new float[groups * blocks * 36 * input_stride]);
  const std::vector<T> zeros(std::max(BLOCK, PANEL));
  const T *from = x.const_data_ptr<T>(), *weights = weight.const_data_ptr<T>();
  const T* add = other == nullptr ? nullptr : other->const_data_ptr<T>();
  const float* terms = bias.const_data_ptr<float>();
  T* to = y.mutable_data_ptr<T>();

  for (int64_t first = 0; first < total; first += groups * in_group) {
    const int64_t count = std::min(groups * in_group, total - first);
    at::parallel_for(0, count, 4, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        std::array<int64_t, 36> places;
        for (int64_t k = 0; k < 36; ++k) places[k] = grid.input(first + tile, k / 6, k % 6);
        for (int64_t block = 0; block < blocks; ++block) {
          std::array<const T*, 36> pixels;
          for (int64_t k = 0; k < 36; ++k)
            pixels[k] = places[k] < 0 ? zeros.data() : from + places[k] * input + block * BLOCK;
          float* start = transformed.get() + (tile / in_group * blocks + block) * 36 * input_stride;
          const int64_t channels = std::min(BLOCK, input - block * BLOCK);
          Level::transform_input(pixels.data(), channels, start + tile % in_group * BLOCK, input_stride);
        }
      }
    });
    const int64_t groups_here = divided_up(count, in_group);
    at::parallel_for(0, panels * groups_here, 1, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<float[]> row(new float[6 * weight_stride]), sums(new float[36 * sum_stride]);
      std::array<T, PANEL> outside;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t panel = i / groups_here, group = i % groups_here;
        const int64_t start = first + group * in_group, tiles = std::min(in_group, first + count - start);
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t channels = std::min(BLOCK, input - block * BLOCK);
          const T* kernels = weights + (panel * input + block * BLOCK) * 9 * PANEL;
          const float* values = transformed.get() + (group * blocks + block) * 36 * input_stride;
          for (int64_t k = 0; k < 36; ++k) {
            if (k % 6 == 0) Level::transform_weight(k / 6, kernels, channels, row.get(), weight_stride);
            Level::multiply(
                values + k * input_stride, row.get() + k % 6 * weight_stride, tiles, channels, block > 0,
                sums.get() + k * sum_stride);
          }
        }
        for (int64_t tile = 0; tile < tiles; ++tile) {
          std::array<const T*, 16> others;
          std::array<T*, 16> pixels;
          for (int64_t k = 0; k < 16; ++k) {
            const int64_t place = grid.output(start + tile, k / 4, k % 4), at = place * output + panel * PANEL;
            pixels[k] = place < 0 ? outside.data() : to + at;
            others[k] = place < 0 || add == nullptr ? zeros.data() : add + at;
          }
          const float* sum = sums.get() + tile * PANEL;
          Level::transform_output(sum, sum_stride, terms + panel * PANEL, others.data(), pixels.data());
        }
      }
    });
  }
  return y;
}

template <typename T>
at::Tensor for_this_processor(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor* other, bool doubled) {
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return winograd<Level4, T>(x, weight, bias, other, doubled);
  return winograd<Level3, T>(x, weight, bias, other, doubled);
}
#endif

bool is_plain(const at::Tensor& x, at::ScalarType type, at::MemoryFormat format) {
  return x.is_cpu() && x.scalar_type() == type && x.is_contiguous(format);
}

} // namespace

extern "C" {

// Whether this processor has the kernels, and they are the fastest for the type.
bool mm_has_winograd(bool bf16) {
#ifdef MM_WINOGRAD
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
      !(bf16 && __builtin_cpu_supports("amx-bf16"));
#else
  return false;
#endif
}

// `weight` is [out / 32, in, 9, 32].
char* mm_winograd(
    const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, const at::Tensor* other, bool doubled,
    at::Tensor** out) {
  return guarded([&] {
#ifdef MM_WINOGRAD
    const at::ScalarType type = x->scalar_type();
    TORCH_CHECK(
        x->dim() == 4 && is_plain(*x, type, at::MemoryFormat::ChannelsLast) && weight->dim() == 4 &&
            is_plain(*weight, type, at::MemoryFormat::Contiguous) &&
            is_plain(*bias, at::kFloat, at::MemoryFormat::Contiguous),
        "this convolution is of channels-last images on the CPU, with weights of their type and a bias in f32");
    TORCH_CHECK(
        weight->size(1) == x->size(1) && x->size(1) % MULTIPLE == 0 && weight->size(2) == 9 &&
            weight->size(3) == PANEL && bias->numel() == weight->size(0) * PANEL,
        "an image of ", x->size(1), " channels for a weight ", weight->sizes());
    const std::array<int64_t, 4> size = {
        x->size(0), bias->numel(), x->size(2) << doubled, x->size(3) << doubled};
    TORCH_CHECK(
        other == nullptr || (other->dim() == 4 && is_plain(*other, type, at::MemoryFormat::ChannelsLast) &&
                             other->sizes() == at::IntArrayRef(size)),
        "what is added to a convolution has its output's shape, layout and type");
    switch (type) {
      case at::kFloat: *out = new at::Tensor(for_this_processor<float>(*x, *weight, *bias, other, doubled)); break;
      case at::kBFloat16:
        *out = new at::Tensor(for_this_processor<c10::BFloat16>(*x, *weight, *bias, other, doubled));
        break;
      default: TORCH_CHECK(false, "this convolution is of f32 and bf16, not of ", x->toString());
    }
#else
    TORCH_CHECK(false, "this processor has no kernels of this convolution");
#endif
  });
}

} // extern "C"
