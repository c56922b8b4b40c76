// exp, log and friends on vectors, for float and double, to about one unit in the last place.
#pragma once

#include "core/simd.h"

namespace pare::PARE_ISA {

namespace detail {

template <class T>
struct Format;
template <>
struct Format<float> {
  using Word = std::uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr float ln2_hi = 0x1.62e4p-1f;  // few bits, so that e * ln2_hi is exact
  static constexpr float ln2_lo = 0x1.7f7d1cp-20f;
  static constexpr float round_shift = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  static constexpr float exp_low = -87.0f;
  static constexpr int exp_terms = 8;
  static constexpr int atanh_terms = 5;       // |s| <= 0.172
  static constexpr int atanh_wide_terms = 9;  // |s| <= 1/3
};
template <>
struct Format<double> {
  using Word = std::uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr double ln2_hi = 0x1.62e42feep-1;
  static constexpr double ln2_lo = 0x1.a39ef35793c76p-33;
  static constexpr double round_shift = 0x1.8p52;
  static constexpr double exp_low = -708.0;
  static constexpr int exp_terms = 14;
  static constexpr int atanh_terms = 11;
  static constexpr int atanh_wide_terms = 18;
};

// 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...), `Terms` of them.
template <class T, int Terms>
PARE_INLINE Vec<T> twice_atanh(Vec<T> s) {
  const Vec<T> z = s * s;
  Vec<T> series = broadcast<T>(T(2) / (2 * Terms - 1));
  for (int i = Terms - 2; i >= 1; --i) series = fma(series, z, broadcast<T>(T(2) / (2 * i + 1)));
  return fma(s * z, series, 2 * s);
}

}  // namespace detail

// e^x for x <= 0 (any x below the overflow threshold); 0 for x = -inf and wherever e^x is subnormal.
template <class T>
PARE_INLINE Vec<T> exp(Vec<T> x) {
  using F = detail::Format<T>;
  const Vec<T> shifted = fma(x, broadcast<T>(T(1.4426950408889634074)), broadcast<T>(F::round_shift));
  const Vec<T> n = shifted - F::round_shift;
  const Vec<T> r = fma(n, broadcast<T>(-F::ln2_lo), fma(n, broadcast<T>(-F::ln2_hi), x));
  T inverse_factorial[F::exp_terms] = {1};
  for (int i = 1; i < F::exp_terms; ++i) inverse_factorial[i] = inverse_factorial[i - 1] / T(i);
  Vec<T> series = broadcast<T>(inverse_factorial[F::exp_terms - 1]);
  for (int i = F::exp_terms - 2; i >= 0; --i) series = fma(series, r, broadcast<T>(inverse_factorial[i]));
  const Bits<T> power = reinterpret_cast<Bits<T>>(shifted) << F::mantissa_bits;
  const Vec<T> result = reinterpret_cast<Vec<T>>(reinterpret_cast<Bits<T>>(series) + power);
  return x >= F::exp_low ? result : Vec<T>{};
}

// x = 2^exponent m with m in [sqrt(1/2), sqrt(2)), for positive normal x; returns m.
template <class T>
PARE_INLINE Vec<T> split_exponent(Vec<T> x, Mask<T>& exponent) {
  using F = detail::Format<T>;
  const Bits<T> bits = reinterpret_cast<Bits<T>>(x);
  const Bits<T> sqrt_half = Bits<T>{} + bit_cast<typename F::Word>(T(0.70710678118654752440));
  exponent = reinterpret_cast<Mask<T>>(bits - sqrt_half) >> F::mantissa_bits;
  return reinterpret_cast<Vec<T>>(bits - (reinterpret_cast<Bits<T>>(exponent) << F::mantissa_bits));
}

// exponent ln 2 + log(1 + f), |f| <= sqrt(2) - 1
template <class T>
PARE_INLINE Vec<T> join_log(Mask<T> exponent, Vec<T> f) {
  using F = detail::Format<T>;
  const Vec<T> e = __builtin_convertvector(exponent, Vec<T>);
  const Vec<T> core = detail::twice_atanh<T, F::atanh_terms>(f / (2 + f));
  return fma(e, broadcast<T>(F::ln2_hi), fma(e, broadcast<T>(F::ln2_lo), core));
}

// log(1 + x) for finite x >= -1/2, with full relative precision near 0.
template <class T>
PARE_INLINE Vec<T> log1p(Vec<T> x) {
  Mask<T> exponent;
  const Vec<T> mantissa = split_exponent<T>(1 + x, exponent);
  // Where 1 + x needs no scaling, x itself is the exact argument; elsewhere the rounding of 1 + x does not matter.
  return join_log<T>(exponent, exponent == 0 ? x : mantissa - 1);
}

// log(x) for positive, finite, normal x.
template <class T>
PARE_INLINE Vec<T> log(Vec<T> x) {
  Mask<T> exponent;
  const Vec<T> mantissa = split_exponent<T>(x, exponent);
  return join_log<T>(exponent, mantissa - 1);
}

// 1 - (1 - p)^a for 0 <= p <= 1/2.
template <class T>
PARE_INLINE Vec<T> one_minus_power(Vec<T> p, T a) {
  const Vec<T> log1m = detail::twice_atanh<T, detail::Format<T>::atanh_wide_terms>(-p / (2 - p));
  return 1 - exp<T>(a * log1m);
}

}  // namespace pare::PARE_ISA
