// The loops of winograd.cpp, which includes this file once for each level of x86-64: LEVEL is the name, WIDTH the
// floats of a register, and ROWS x 2 registers hold sums of products.

struct LEVEL {
  typedef float vec __attribute__((vector_size(4 * WIDTH)));
  typedef float vec_at __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
  typedef unsigned int bits __attribute__((vector_size(4 * WIDTH)));
  typedef unsigned short half_bits __attribute__((vector_size(2 * WIDTH)));
  typedef unsigned short half_bits_at __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));

  static vec load(const float* from) { return *reinterpret_cast<const vec_at*>(from); }

  static vec load(const c10::BFloat16* from) {
    const half_bits raw = *reinterpret_cast<const half_bits_at*>(from);
    return reinterpret_cast<vec>(__builtin_convertvector(raw, bits) << 16);
  }

  static void store(float* to, vec x) { *reinterpret_cast<vec_at*>(to) = x; }

  // To the nearest number, ties to even.
  static void store(c10::BFloat16* to, vec x) {
    const bits raw = reinterpret_cast<bits>(x);
    const bits rounded = (raw + 0x7fff + ((raw >> 16) & 1)) >> 16;
    *reinterpret_cast<half_bits_at*>(to) = __builtin_convertvector(rounded, half_bits);
  }

  // The points of the interpolation are 0, P, -P, Q, -Q and infinity.
  static constexpr float P = 0.75f, Q = 1.5f, P2 = P * P, Q2 = Q * Q;

  // B^T d.
  static void input_column(const vec* d, vec* y, int step) {
    y[0] = d[0] * (P2 * Q2) - d[2] * (P2 + Q2) + d[4];
    const vec even_p = d[4] - d[2] * Q2, odd_p = d[3] - d[1] * Q2;
    y[step] = even_p + odd_p * P;
    y[2 * step] = even_p - odd_p * P;
    const vec even_q = d[4] - d[2] * P2, odd_q = d[3] - d[1] * P2;
    y[3 * step] = even_q + odd_q * Q;
    y[4 * step] = even_q - odd_q * Q;
    y[5 * step] = d[1] * (P2 * Q2) - d[3] * (P2 + Q2) + d[5];
  }

  // Row I of G g.
  template <int I>
  static vec weight_row(vec g0, vec g1, vec g2) {
    constexpr float at_p = 1 / (2 * P2 * (P2 - Q2)), at_q = 1 / (2 * Q2 * (Q2 - P2));
    if constexpr (I == 0) return g0 * (1 / (P2 * Q2));
    if constexpr (I == 1) return (g0 + g1 * P + g2 * P2) * at_p;
    if constexpr (I == 2) return (g0 - g1 * P + g2 * P2) * at_p;
    if constexpr (I == 3) return (g0 + g1 * Q + g2 * Q2) * at_q;
    if constexpr (I == 4) return (g0 - g1 * Q + g2 * Q2) * at_q;
    return g2;
  }

  // A^T m.
  static void output_column(const vec* m, vec* y, int step) {
    const vec sum_p = m[1] + m[2], odd_p = m[1] - m[2], sum_q = m[3] + m[4], odd_q = m[3] - m[4];
    y[0] = m[0] + sum_p + sum_q;
    y[step] = odd_p * P + odd_q * Q;
    y[2 * step] = sum_p * P2 + sum_q * Q2;
    y[3 * step] = odd_p * (P2 * P) + odd_q * (Q2 * Q) + m[5];
  }

  // B^T d B of one tile, for each of `channels`: `from` are the 36 pixels; element k goes to `to + k * stride`.
  template <typename T>
  static void transform_input(const T* const* from, int64_t channels, float* to, int64_t stride) {
    for (int64_t c = 0; c < channels; c += WIDTH) {
      vec t[36];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        vec d[6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) d[i] = load(from[6 * i + j] + c);
        input_column(d, t + j, 6);
      }
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) {
        vec y[6];
        input_column(t + 6 * i, y, 1);
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * stride + c, y[j]);
      }
    }
  }

  // Row I of G g G^T, for each of `channels` and PANEL outputs: `from` is [channels, 9, PANEL], element j goes to
  // `to + j * stride`.
  template <int I, typename T>
  static void transform_weight(const T* from, int64_t channels, float* to, int64_t stride) {
    for (int64_t c = 0; c < channels; ++c, from += 9 * PANEL, to += PANEL) {
      for (int64_t o = 0; o < PANEL; o += WIDTH) {
        auto column = [&](int j) {
          return weight_row<I>(
              load(from + j * PANEL + o), load(from + (3 + j) * PANEL + o), load(from + (6 + j) * PANEL + o));
        };
        const vec t0 = column(0), t1 = column(1), t2 = column(2);
        store(to + o, weight_row<0>(t0, t1, t2));
        store(to + stride + o, weight_row<1>(t0, t1, t2));
        store(to + 2 * stride + o, weight_row<2>(t0, t1, t2));
        store(to + 3 * stride + o, weight_row<3>(t0, t1, t2));
        store(to + 4 * stride + o, weight_row<4>(t0, t1, t2));
        store(to + 5 * stride + o, weight_row<5>(t0, t1, t2));
      }
    }
  }

  template <typename T>
  static void transform_weight(int row, const T* from, int64_t channels, float* to, int64_t stride) {
    switch (row) {
      case 0: return transform_weight<0>(from, channels, to, stride);
      case 1: return transform_weight<1>(from, channels, to, stride);
      case 2: return transform_weight<2>(from, channels, to, stride);
      case 3: return transform_weight<3>(from, channels, to, stride);
      case 4: return transform_weight<4>(from, channels, to, stride);
      default: return transform_weight<5>(from, channels, to, stride);
    }
  }

  // A^T m A of one tile and PANEL outputs, plus the bias and the 16 pixels `other`: the pixels `to`.
  template <typename T>
  static void transform_output(
      const float* from, int64_t stride, const float* bias, const T* const* other, T* const* to) {
    for (int64_t o = 0; o < PANEL; o += WIDTH) {
      vec t[24];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        vec m[6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) m[i] = load(from + (6 * i + j) * stride + o);
        output_column(m, t + j, 6);
      }
      const vec term = load(bias + o);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        vec y[4];
        output_column(t + 6 * i, y, 1);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store(to[4 * i + j] + o, y[j] + term + load(other[4 * i + j] + o));
      }
    }
  }

  // R rows of `a` [R, BLOCK] times 2 WIDTH columns of `b` [channels, PANEL]: put into `sums` [R, PANEL], or added.
  template <int R>
  static void multiply_rows(const float* a, const float* b, int64_t channels, bool adds, float* sums) {
    vec sum[R][2];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      sum[r][0] = adds ? load(sums + r * PANEL) : vec{};
      sum[r][1] = adds ? load(sums + r * PANEL + WIDTH) : vec{};
    }
    for (int64_t c = 0; c < channels; ++c) {
      __builtin_prefetch(a + R * BLOCK + c * R);  // the next rows: the processor alone fetches them too late
      const vec left = load(b + c * PANEL), right = load(b + c * PANEL + WIDTH);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        sum[r][0] += left * a[r * BLOCK + c];
        sum[r][1] += right * a[r * BLOCK + c];
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      store(sums + r * PANEL, sum[r][0]);
      store(sums + r * PANEL + WIDTH, sum[r][1]);
    }
  }

  // At most R rows.
  template <int R>
  static void multiply_rest(int64_t rows, const float* a, const float* b, int64_t channels, bool adds, float* sums) {
    if constexpr (R > 0) {
      if (rows == R) return multiply_rows<R>(a, b, channels, adds, sums);
      multiply_rest<R - 1>(rows, a, b, channels, adds, sums);
    }
  }

  // All `rows` of `a` times `b`.
  static void multiply(const float* a, const float* b, int64_t rows, int64_t channels, bool adds, float* sums) {
    for (int64_t o = 0; o < PANEL; o += 2 * WIDTH) {
      int64_t row = 0;
      for (; row + ROWS <= rows; row += ROWS)
        multiply_rows<ROWS>(a + row * BLOCK, b + o, channels, adds, sums + row * PANEL + o);
      multiply_rest<ROWS - 1>(rows - row, a + row * BLOCK, b + o, channels, adds, sums + row * PANEL + o);
    }
  }
};
