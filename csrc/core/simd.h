// Vectors of the width of the instruction set that this translation unit is compiled for.
//
// Every kernels_<set>.cpp includes the kernels once, after it has chosen PARE_ISA (the namespace) and PARE_VECTOR_BYTES.
// GCC and Clang vector types keep one source for all widths; intrinsics appear only where a vector type has no word for it.
#pragma once

#include "core/common.h"

namespace pare::PARE_ISA {

using VF = float __attribute__((vector_size(PARE_VECTOR_BYTES)));
using VD = double __attribute__((vector_size(PARE_VECTOR_BYTES)));
using VI = std::int32_t __attribute__((vector_size(PARE_VECTOR_BYTES)));
using VU = std::uint32_t __attribute__((vector_size(PARE_VECTOR_BYTES)));
using VL = std::int64_t __attribute__((vector_size(PARE_VECTOR_BYTES)));
using VUL = std::uint64_t __attribute__((vector_size(PARE_VECTOR_BYTES)));
// As many narrow lanes as there are of VD, VL and VUL.
using VF32 = float __attribute__((vector_size(PARE_VECTOR_BYTES / 2)));
using VI32 = std::int32_t __attribute__((vector_size(PARE_VECTOR_BYTES / 2)));
using VU32 = std::uint32_t __attribute__((vector_size(PARE_VECTOR_BYTES / 2)));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = VF;
  using mask = VI;
  using bits = VU;
};
template <>
struct VectorOf<double> {
  using type = VD;
  using mask = VL;
  using bits = VUL;
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
using Mask = typename VectorOf<T>::mask;
template <class T>
using Bits = typename VectorOf<T>::bits;

template <class T>
inline constexpr int lanes = PARE_VECTOR_BYTES / sizeof(T);

template <class T>
PARE_INLINE Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

template <class T>
PARE_INLINE void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof(v));
}

// The first `count` lanes from memory, `padding` in the others.
template <class T>
PARE_INLINE Vec<T> load_part(const T* from, std::int64_t count, T padding) {
  T values[lanes<T>];
  std::fill(values, values + lanes<T>, padding);
  std::memcpy(values, from, sizeof(T) * static_cast<std::size_t>(std::min<std::int64_t>(lanes<T>, count)));
  return load(values);
}

// The first `count` lanes to memory.
template <class T>
PARE_INLINE void store_part(T* to, Vec<T> v, std::int64_t count) {
  T values[lanes<T>];
  store(values, v);
  std::memcpy(to, values, sizeof(T) * static_cast<std::size_t>(std::min<std::int64_t>(lanes<T>, count)));
}

template <class T>
PARE_INLINE Vec<T> broadcast(T x) {
  return Vec<T>{} + x;
}

// a * b + c, fused where the set has it: contraction of this expression is on in both compilers for it.
template <class V>
PARE_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}

template <class V>
PARE_INLINE V vmax(V a, V b) {
  return a > b ? a : b;
}

template <class V>
PARE_INLINE V vmin(V a, V b) {
  return a < b ? a : b;
}

// The 64-bit products of the lower halves of the lanes.
PARE_INLINE VUL multiply_low_halves(VUL a, VUL b) {
#if defined(PARE_ISA_AVX512)
  return reinterpret_cast<VUL>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(PARE_ISA_AVX2)
  return reinterpret_cast<VUL>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__)
  return reinterpret_cast<VUL>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

template <class M>
PARE_INLINE bool any(M mask) {
#if defined(PARE_ISA_AVX512)
  return _mm512_test_epi64_mask(reinterpret_cast<__m512i>(mask), reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(PARE_ISA_AVX2)
  return !_mm256_testz_si256(reinterpret_cast<__m256i>(mask), reinterpret_cast<__m256i>(mask));
#elif defined(__SSE2__)
  return _mm_movemask_epi8(reinterpret_cast<__m128i>(mask)) != 0;
#else
  std::uint64_t words[PARE_VECTOR_BYTES / 8];
  std::memcpy(words, &mask, sizeof(mask));
  std::uint64_t all = 0;
  for (std::uint64_t word : words) all |= word;
  return all != 0;
#endif
}

using HalfF = float __attribute__((vector_size(16)));
using HalfD = double __attribute__((vector_size(16)));

// Pairwise reduction over the lanes with `op`, always in the same order.
template <class T, class Op>
PARE_INLINE T reduce(Vec<T> v, Op op) {
  using H = std::conditional_t<sizeof(T) == 4, HalfF, HalfD>;
  H parts[PARE_VECTOR_BYTES / 16];
  std::memcpy(parts, &v, sizeof(v));
  for (int width = PARE_VECTOR_BYTES / 32; width >= 1; width /= 2)
    for (int i = 0; i < width; ++i) parts[i] = op(parts[i], parts[i + width]);
  H h = parts[0];
  if constexpr (sizeof(T) == 4) {
    return op(op(h[0], h[2]), op(h[1], h[3]));
  } else {
    return op(h[0], h[1]);
  }
}

struct Add {
  template <class V>
  PARE_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};
struct Max {
  template <class V>
  PARE_INLINE V operator()(V a, V b) const {
    return vmax(a, b);
  }
};

template <class T>
PARE_INLINE T hsum(Vec<T> v) {
  return reduce<T>(v, Add{});
}
template <class T>
PARE_INLINE T hmax(Vec<T> v) {
  return reduce<T>(v, Max{});
}

// The least and the greatest finite number of a row; low > high where there is none.
template <class T>
struct Extent {
  T low, high;

  Extent(const T* values, std::int64_t count) {
    const Vec<T> infinity = broadcast<T>(std::numeric_limits<T>::infinity());
    Vec<T> least = infinity, greatest = -infinity;
    for (std::int64_t i = 0; i < count; i += lanes<T>) {
      const Vec<T> x = i + lanes<T> <= count ? load(values + i)
                                             : load_part(values + i, count - i, std::numeric_limits<T>::infinity());
      const Mask<T> finite = (x > -infinity) & (x < infinity);
      least = finite & (x < least) ? x : least;
      greatest = finite & (x > greatest) ? x : greatest;
    }
    low = -hmax<T>(-least);
    high = hmax<T>(greatest);
  }
};

// ---- tokens: stored in one type, computed with in another --------------------------------------------------------------

PARE_INLINE VF load_acc(const float* from) { return load(from); }
PARE_INLINE VD load_acc(const double* from) { return load(from); }

using VU16 = std::uint16_t __attribute__((vector_size(PARE_VECTOR_BYTES / 2)));

PARE_INLINE VF load_acc(const bf16* from) {
  VU16 raw;
  std::memcpy(&raw, from, sizeof(raw));
  return reinterpret_cast<VF>(__builtin_convertvector(raw, VU) << 16);
}

PARE_INLINE VF load_acc(const f16* from) {
#if defined(PARE_ISA_AVX512)
  return reinterpret_cast<VF>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(PARE_ISA_AVX2)
  return reinterpret_cast<VF>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  VU16 raw;
  std::memcpy(&raw, from, sizeof(raw));
  const VU bits = __builtin_convertvector(raw, VU);
  const VU magnitude = (bits & 0x7fffu) << 13;
  const VF value = reinterpret_cast<VF>(magnitude) * 0x1p112f;
  const VU special = reinterpret_cast<VU>((bits & 0x7c00u) == 0x7c00u);
  const VU result = (special & (magnitude | 0x7f800000u)) | (~special & reinterpret_cast<VU>(value));
  return reinterpret_cast<VF>(result | ((bits & 0x8000u) << 16));
#endif
}

PARE_INLINE void store_acc(float* to, VF v) { store(to, v); }
PARE_INLINE void store_acc(double* to, VD v) { store(to, v); }

PARE_INLINE void store_acc(bf16* to, VF v) {
  const VU bits = reinterpret_cast<VU>(v);
  const VU rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const VU nan = reinterpret_cast<VU>(v != v);
  const VU16 raw = __builtin_convertvector((nan & 0x7fc0u) | (~nan & rounded), VU16);
  std::memcpy(to, &raw, sizeof(raw));
}

PARE_INLINE void store_acc(f16* to, VF v) {
#if defined(PARE_ISA_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(reinterpret_cast<__m512>(v), 0));
#elif defined(PARE_ISA_AVX2)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(reinterpret_cast<__m256>(v), 0));
#else
  for (int i = 0; i < lanes<float>; ++i) from_acc(to + i, v[i]);
#endif
}

// Stores that bypass the caches, for tensors that would only evict what is needed next. `to` is vector-aligned.
template <class T>
PARE_INLINE void stream(T* to, Vec<T> v) {
#if defined(PARE_ISA_AVX512)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(v));
#elif defined(PARE_ISA_AVX2)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(v));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(v));
#else
  store(to, v);
#endif
}

// The same for tokens, which may be narrower than what they are computed with.
PARE_INLINE void stream_acc(float* to, VF v) { stream(to, v); }
PARE_INLINE void stream_acc(double* to, VD v) { stream(to, v); }

template <class Half>
PARE_INLINE void stream_acc(Half* to, VF v) {
  alignas(PARE_VECTOR_BYTES / 2) Half row[lanes<float>];
  store_acc(row, v);
#if defined(PARE_ISA_AVX512)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), *reinterpret_cast<const __m256i*>(row));
#elif defined(PARE_ISA_AVX2)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), *reinterpret_cast<const __m128i*>(row));
#else
  std::memcpy(to, row, sizeof(row));
#endif
}

PARE_INLINE void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace pare::PARE_ISA
