// Gumbel noise from Philox-4x32-10 (Salmon et al., SC 2011): one counter per (stream, row, patch), keyed by the seed.
#pragma once

#include "core/math.h"

namespace pare::PARE_ISA {

inline constexpr std::uint32_t philox_multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr std::uint32_t philox_key_step[2] = {0x9E3779B9u, 0xBB67AE85u};
inline constexpr int philox_rounds = 10;

// words[i] = the first word for patch `first + i`, `count` of them. On 64-bit lanes, of which the lower halves count: one
// multiplication gives both halves of a product, and what is left above does no harm.
inline void philox_words(std::uint64_t seed, std::uint32_t stream, std::uint64_t row, std::uint32_t first, int count,
                         std::uint32_t* words) {
  constexpr int width = lanes<double>;
  VUL key[philox_rounds][2];
  for (int r = 0; r < philox_rounds; ++r) {
    key[r][0] = VUL{} + (static_cast<std::uint32_t>(seed) + static_cast<std::uint32_t>(r) * philox_key_step[0]);
    key[r][1] = VUL{} + (static_cast<std::uint32_t>(seed >> 32) + static_cast<std::uint32_t>(r) * philox_key_step[1]);
  }
  const VUL multiplier0 = VUL{} + philox_multiplier[0], multiplier1 = VUL{} + philox_multiplier[1];
  VUL lane;
  for (int l = 0; l < width; ++l) lane[l] = static_cast<std::uint64_t>(l);
  for (int i = 0; i < count; i += width) {
    VUL c0 = lane + (first + static_cast<std::uint64_t>(i)), c1 = VUL{} + (row & 0xffffffffu), c2 = VUL{} + (row >> 32);
    VUL c3 = VUL{} + stream;
    for (int r = 0; r < philox_rounds; ++r) {
      const VUL product0 = multiply_low_halves(multiplier0, c0);
      const VUL product1 = multiply_low_halves(multiplier1, c2);
      c0 = (product1 >> 32) ^ c1 ^ key[r][0];
      c1 = product1;
      c2 = (product0 >> 32) ^ c3 ^ key[r][1];
      c3 = product0;
    }
    const auto low = __builtin_convertvector(c0, VU32);
    std::memcpy(words + i, &low, sizeof(std::uint32_t) * static_cast<std::size_t>(std::min(width, count - i)));
  }
}

// G = -log(-log(u)), u = (m + 1/2) 2^-24, from the top 24 bits m of each word.
template <class T>
PARE_INLINE Vec<T> gumbel(Mask<T> m) {
  // m + 1/2 needs 25 bits above 2^23: there the distance of u from 1 is exact instead, and log1p takes it.
  const Mask<T> upper = m >= (1 << 23);
  const Vec<T> low = (__builtin_convertvector(m, Vec<T>) + T(0.5)) * T(0x1p-24);
  const Vec<T> high = (__builtin_convertvector((1 << 24) - 1 - m, Vec<T>) + T(0.5)) * T(0x1p-24);
  const Vec<T> minus_log_u = upper ? -log1p<T>(upper ? -high : Vec<T>{}) : -log<T>(low);
  return -log<T>(minus_log_u);
}

// One row of standard Gumbel noise, `patches` values.
template <class T>
void gumbel_row(std::uint64_t seed, std::uint32_t stream, std::uint64_t row, std::int64_t patches, T* noise) {
  constexpr int block = 64;
  std::uint32_t words[block];
  for (std::int64_t i = 0; i < patches; i += block) {
    const int used = static_cast<int>(std::min<std::int64_t>(block, (patches - i + lanes<T> - 1) / lanes<T> * lanes<T>));
    philox_words(seed, stream, row, static_cast<std::uint32_t>(i), used, words);
    T values[block];
    for (int j = 0; j < used; j += lanes<T>) {
      Mask<T> m;
      for (int l = 0; l < lanes<T>; ++l) m[l] = static_cast<std::int32_t>(words[j + l] >> 8);
      store(values + j, gumbel<T>(m));
    }
    std::memcpy(noise + i, values, sizeof(T) * static_cast<std::size_t>(std::min<std::int64_t>(block, patches - i)));
  }
}

}  // namespace pare::PARE_ISA
