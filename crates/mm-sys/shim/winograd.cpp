// 3 x 3 convolutions of channels-last images by Winograd's F(2x2, 3x3) (Lavin & Gray 2016): 16 multiplications for 4
// outputs in place of 36. oneDNN has this form for no x86 processor.

#include "guarded.h"
#include "levels.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <algorithm>
#include <array>
#include <vector>

namespace {

// Tiles of 2 x 2 outputs whose products are taken at once: their transforms stay in the outer cache.
constexpr int64_t TILES = 512;

// B^T d B of one tile, for each channel: `from` are the 16 pixels, `to[k]` element k of the result.
MM_FOR_EACH_LEVEL
void transform_input(const float* const* from, int64_t channels, float* const* to) {
  for (int64_t c = 0; c < channels; ++c) {
    float t[4][4];
    for (int j = 0; j < 4; ++j) {
      const float d0 = from[j][c], d1 = from[4 + j][c], d2 = from[8 + j][c], d3 = from[12 + j][c];
      t[0][j] = d0 - d2;
      t[1][j] = d1 + d2;
      t[2][j] = d2 - d1;
      t[3][j] = d1 - d3;
    }
    for (int i = 0; i < 4; ++i) {
      to[4 * i][c] = t[i][0] - t[i][2];
      to[4 * i + 1][c] = t[i][1] + t[i][2];
      to[4 * i + 2][c] = t[i][2] - t[i][1];
      to[4 * i + 3][c] = t[i][1] - t[i][3];
    }
  }
}

// A^T m A of one tile, plus the bias and, where they are given, the pixels `other`: the pixels `to`.
MM_FOR_EACH_LEVEL
void transform_output(
    const float* const* from, int64_t channels, const float* bias, const float* const* other, float* const* to) {
  for (int64_t c = 0; c < channels; ++c) {
    float s[2][4];
    for (int j = 0; j < 4; ++j) {
      const float m0 = from[j][c], m1 = from[4 + j][c], m2 = from[8 + j][c], m3 = from[12 + j][c];
      s[0][j] = m0 + m1 + m2;
      s[1][j] = m1 - m2 - m3;
    }
    for (int i = 0; i < 2; ++i) {
      to[2 * i][c] = s[i][0] + s[i][1] + s[i][2] + bias[c] + other[2 * i][c];
      to[2 * i + 1][c] = s[i][1] - s[i][2] - s[i][3] + bias[c] + other[2 * i + 1][c];
    }
  }
}

struct Grid {
  int64_t height, width, rows, columns;

  Grid(int64_t height, int64_t width)
      : height(height), width(width), rows((height + 1) / 2), columns((width + 1) / 2) {}

  // Pixel (y, x) of an image, or `outside`.
  template <typename T>
  T* pixel(T* image, int64_t channels, int64_t y, int64_t x, T* outside) const {
    return y < 0 || y >= height || x < 0 || x >= width ? outside : image + (y * width + x) * channels;
  }
};

at::Tensor winograd(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor* other) {
  const int64_t batch = x.size(0), input = x.size(1), output = weight.size(2);
  const Grid grid(x.size(2), x.size(3));
  at::Tensor y = at::empty(
      {batch, output, grid.height, grid.width}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const int64_t in_image = grid.rows * grid.columns, total = batch * in_image;
  const int64_t block = std::min(TILES, total);
  at::Tensor transformed = at::empty({16, block, input}, x.options().memory_format(std::nullopt));
  at::Tensor products = at::empty({16, block, output}, x.options().memory_format(std::nullopt));
  const std::vector<float> zeros(std::max(input, output));
  const float *from = x.const_data_ptr<float>(), *term = bias.const_data_ptr<float>();
  const float* add = other == nullptr ? nullptr : other->const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  const int64_t pixels = grid.height * grid.width;
  for (int64_t first = 0; first < total; first += block) {
    const int64_t count = std::min(block, total - first);
    at::Tensor v = transformed.narrow(1, 0, count), m = products.narrow(1, 0, count);
    float *v_data = v.mutable_data_ptr<float>(), *m_data = m.mutable_data_ptr<float>();
    at::parallel_for(0, count, 8, [&](int64_t begin, int64_t end) {
      std::array<const float*, 16> read;
      std::array<float*, 16> write;
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t image = (first + tile) / in_image, place = (first + tile) % in_image;
        const int64_t top = 2 * (place / grid.columns) - 1, left = 2 * (place % grid.columns) - 1;
        for (int64_t k = 0; k < 16; ++k) {
          read[k] = grid.pixel(from + image * pixels * input, input, top + k / 4, left + k % 4, zeros.data());
          write[k] = v_data + (k * block + tile) * input;
        }
        transform_input(read.data(), input, write.data());
      }
    });
    at::bmm_out(m, v, weight);
    at::parallel_for(0, count, 8, [&](int64_t begin, int64_t end) {
      std::array<const float*, 16> read;
      std::array<const float*, 4> sum;
      std::array<float*, 4> write;
      std::vector<float> outside(output);
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t image = (first + tile) / in_image, place = (first + tile) % in_image;
        const int64_t top = 2 * (place / grid.columns), left = 2 * (place % grid.columns);
        for (int64_t k = 0; k < 16; ++k) read[k] = m_data + (k * block + tile) * output;
        for (int64_t k = 0; k < 4; ++k) {
          const int64_t row = top + k / 2, column = left + k % 2;
          write[k] = grid.pixel(to + image * pixels * output, output, row, column, outside.data());
          sum[k] = add == nullptr ? zeros.data()
                                  : grid.pixel(add + image * pixels * output, output, row, column, zeros.data());
        }
        transform_output(read.data(), output, term, sum.data(), write.data());
      }
    });
  }
  return y;
}

bool is_plain(const at::Tensor& x, at::MemoryFormat format) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous(format);
}

} // namespace

extern "C" {

char* mm_winograd(
    const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, const at::Tensor* other, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(
        x->dim() == 4 && is_plain(*x, at::MemoryFormat::ChannelsLast) && weight->dim() == 3 &&
            is_plain(*weight, at::MemoryFormat::Contiguous) && is_plain(*bias, at::MemoryFormat::Contiguous),
        "this convolution is of channels-last images in f32 on the CPU");
    TORCH_CHECK(
        weight->size(0) == 16 && weight->size(1) == x->size(1) && bias->numel() == weight->size(2),
        "an image of ", x->size(1), " channels for a weight ", weight->sizes());
    TORCH_CHECK(
        other == nullptr || (is_plain(*other, at::MemoryFormat::ChannelsLast) && other->dim() == 4 &&
                             other->sizes() == at::IntArrayRef({x->size(0), weight->size(2), x->size(2), x->size(3)})),
        "what is added to a convolution has its output's shape and layout");
    *out = new at::Tensor(winograd(*x, *weight, *bias, other));
  });
}

} // extern "C"
