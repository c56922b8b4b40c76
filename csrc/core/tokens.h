// What touches tokens: gate scores, row dots, copies and exchanges of rows, gradients of rows. All of it is memory-bound.
#pragma once

#include "core/math.h"

namespace pare::PARE_ISA {

// <a, b>, every row with the same order of additions wherever it stands.
template <class A, class B>
PARE_INLINE Acc<A> dot(const A* a, const B* b, std::int64_t features) {
  using T = Acc<A>;
  constexpr int width = lanes<T>;
  Vec<T> sum[4] = {};
  std::int64_t d = 0;
  for (; d + 4 * width <= features; d += 4 * width)
    for (int i = 0; i < 4; ++i) sum[i] = fma(load_acc(a + d + i * width), load_acc(b + d + i * width), sum[i]);
  for (; d + width <= features; d += width) sum[0] = fma(load_acc(a + d), load_acc(b + d), sum[0]);
  T total = hsum<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; d < features; ++d) total += to_acc(a[d]) * to_acc(b[d]);
  return total;
}

// z -> 1 / (1 + e^-z) in place, without overflow; NaN stays NaN.
template <class T>
void sigmoid_row(T* z, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += lanes<T>) {
    const Vec<T> x = load_part(z + i, count - i, T(0));
    const Vec<T> e = exp<T>(x < 0 ? x : -x);
    const Vec<T> g = (x < 0 ? e : broadcast<T>(1)) / (1 + e);
    store_part(z + i, static_cast<Vec<T>>(x == x ? g : x), count - i);
  }
}

// (N, D) tokens and a (D,) weight to (N,) scores: scores[n] = sigmoid(<tokens[n], weight> + bias).
template <class Token>
void gate_scores(const Token* tokens, std::int64_t row_stride, std::int64_t patches, std::int64_t features,
                 const Acc<Token>* weight, Acc<Token> bias, Acc<Token>* scores) {
  for (std::int64_t n = 0; n < patches; ++n) scores[n] = dot(tokens + n * row_stride, weight, features) + bias;
  sigmoid_row(scores, patches);
}

// Whether stores of whole vectors that bypass the caches may go to this row.
PARE_INLINE bool can_stream(const void* row) { return reinterpret_cast<std::uintptr_t>(row) % PARE_VECTOR_BYTES == 0; }

// Copies one row, or writes zeros where `from` is null; `streaming` bypasses the caches where the row is aligned for it.
PARE_INLINE void copy_row(void* to, const void* from, std::int64_t bytes, bool streaming) {
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  std::int64_t i = 0;
  if (streaming && can_stream(to)) {
    for (; i + PARE_VECTOR_BYTES <= bytes; i += PARE_VECTOR_BYTES)
      stream(reinterpret_cast<float*>(out + i), in ? load(reinterpret_cast<const float*>(in + i)) : VF{});
  }
  const auto left = static_cast<std::size_t>(bytes - i);
  if (in) {
    std::memcpy(out + i, in + i, left);
  } else {
    std::memset(out + i, 0, left);
  }
}

PARE_INLINE void exchange_rows(void* a, void* b, std::int64_t bytes) {
  auto* x = static_cast<char*>(a);
  auto* y = static_cast<char*>(b);
  std::int64_t i = 0;
  for (; i + PARE_VECTOR_BYTES <= bytes; i += PARE_VECTOR_BYTES) {
    VF u, v;
    std::memcpy(&u, x + i, sizeof(u));
    std::memcpy(&v, y + i, sizeof(v));
    std::memcpy(x + i, &v, sizeof(v));
    std::memcpy(y + i, &u, sizeof(u));
  }
  for (; i < bytes; ++i) std::swap(x[i], y[i]);
}

// Starts to fetch the first cache lines of a row that will be read soon.
PARE_INLINE void prefetch_row(const void* row, std::int64_t bytes) {
  const auto* line = static_cast<const char*>(row);
  for (std::int64_t i = 0; i < std::min<std::int64_t>(bytes, 1024); i += 64) __builtin_prefetch(line + i);
}

// dw = sum_n dz_n x_n and dbias = sum_n dz_n over the rows of one task: float for a block of rows, then double, always in the
// order of the rows.
template <class Token>
class WeightGradient {
 public:
  using T = Acc<Token>;

  static std::size_t bytes(std::int64_t features) {
    return Scratch::bytes<T>(features) + Scratch::bytes<double>(features);
  }
  WeightGradient(std::int64_t features, Scratch& scratch)
      : features_(features), partial_(scratch.take<T>(features)), total_(scratch.take<double>(features)) {
    std::fill(partial_, partial_ + features, T(0));
    std::fill(total_, total_ + features, 0.0);
  }

  // dw += dz * x, dbias += dz
  PARE_INLINE void add(T dz, const Token* x) {
    const Vec<T> factor = broadcast<T>(dz);
    std::int64_t d = 0;
    for (; d + lanes<T> <= features_; d += lanes<T>)
      store(partial_ + d, fma(factor, load_acc(x + d), load(partial_ + d)));
    for (; d < features_; ++d) partial_[d] += dz * to_acc(x[d]);
    bias_ += dz;
    if (++rows_ == block) flush();
  }

  void add_to(double* weight, double* bias) {
    flush();
    for (std::int64_t d = 0; d < features_; ++d) weight[d] += total_[d];
    *bias += bias_;
  }

 private:
  static constexpr int block = 64;

  void flush() {
    for (std::int64_t d = 0; d < features_; ++d) {
      total_[d] += partial_[d];
      partial_[d] = 0;
    }
    rows_ = 0;
  }

  std::int64_t features_;
  T* partial_;
  double* total_;
  double bias_ = 0;
  int rows_ = 0;
};

namespace detail {

template <bool Streaming, bool Base, class Token>
PARE_INLINE void gradient_row(Token* out, const Token* base, Acc<Token> dz, const Acc<Token>* weight,
                              std::int64_t features) {
  using T = Acc<Token>;
  const Vec<T> factor = broadcast<T>(dz);
  std::int64_t d = 0;
  for (; d + lanes<T> <= features; d += lanes<T>) {
    Vec<T> value = factor * load(weight + d);
    if constexpr (Base) value = load_acc(base + d) + value;
    Streaming ? stream_acc(out + d, value) : store_acc(out + d, value);
  }
  for (; d < features; ++d) from_acc(out + d, (Base ? to_acc(base[d]) : T(0)) + dz * weight[d]);
}

}  // namespace detail

// out = base + dz * weight, without the base where it is null; `streaming` bypasses the caches where the row is aligned for it.
template <class Token>
PARE_INLINE void gradient_row(Token* out, const Token* base, Acc<Token> dz, const Acc<Token>* weight,
                              std::int64_t features, bool streaming) {
  if (streaming && can_stream(out)) {
    base ? detail::gradient_row<true, true>(out, base, dz, weight, features)
         : detail::gradient_row<true, false>(out, base, dz, weight, features);
  } else {
    base ? detail::gradient_row<false, true>(out, base, dz, weight, features)
         : detail::gradient_row<false, false>(out, base, dz, weight, features);
  }
}

}  // namespace pare::PARE_ISA
