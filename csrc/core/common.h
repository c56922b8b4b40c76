// What every part of the core shares: types of tokens, small helpers. No torch in here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// glibc 2.29 gave these functions new versions, which differ in how errors reach errno: with the old ones, one file serves 2.28 too.
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
__asm__(".symver pow, pow@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver exp, exp@GLIBC_2.17");
__asm__(".symver log, log@GLIBC_2.17");
__asm__(".symver pow, pow@GLIBC_2.17");
#endif

#define PARE_STRING_(x) #x
#define PARE_STRING(x) PARE_STRING_(x)

#define PARE_INLINE inline __attribute__((always_inline))

namespace pare {

struct bf16 {
  std::uint16_t bits;
};
struct f16 {
  std::uint16_t bits;
};

enum class Type { f32, f64, bf16, f16 };

// Scores, noise and all sums are in float, in double for double tokens.
template <class Token>
using Acc = std::conditional_t<std::is_same_v<Token, double>, double, float>;

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// A stored value as it is computed with, and back.
PARE_INLINE float to_acc(float x) { return x; }
PARE_INLINE double to_acc(double x) { return x; }
PARE_INLINE float to_acc(bf16 x) {
  return bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

// Half to float on integers: shift the fields, then one multiplication moves the exponent and renormalises subnormals.
PARE_INLINE float to_acc(f16 x) {
  const std::uint32_t magnitude = (x.bits & 0x7fffu) << 13;
  float value = bit_cast<float>(magnitude) * 0x1p112f;
  if ((x.bits & 0x7c00u) == 0x7c00u) value = bit_cast<float>(magnitude | 0x7f800000u);
  return bit_cast<float>(bit_cast<std::uint32_t>(value) | (static_cast<std::uint32_t>(x.bits & 0x8000u) << 16));
}

PARE_INLINE void from_acc(float* to, float x) { *to = x; }
PARE_INLINE void from_acc(double* to, double x) { *to = x; }
PARE_INLINE void from_acc(bf16* to, float x) {
  const std::uint32_t bits = bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to->bits = static_cast<std::uint16_t>(x != x ? 0x7fc0u : rounded);
}
PARE_INLINE void from_acc(f16* to, float x) {
  const std::uint32_t bits = bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds beyond 65504
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 rounds to a multiple of 2^-24
    half = bit_cast<std::uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  to->bits = static_cast<std::uint16_t>(sign | half);
}


// Uninitialised memory for one task, on cache-line boundaries; `take` hands out consecutive parts of it.
//
// A thread keeps the blocks it has used, up to a few MiB: taking memory from the allocator costs more than the work on a short
// row, and where the allocator gives pages back to the system at once, as much as that on a long one.
class Scratch {
 public:
  static constexpr std::size_t alignment = 64;

  explicit Scratch(std::size_t bytes) : block_(Blocks::mine().borrow(bytes)) {}
  ~Scratch() { Blocks::mine().give_back(std::move(block_)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  static constexpr std::size_t bytes(std::int64_t count) {
    return (static_cast<std::size_t>(count) * sizeof(T) + alignment - 1) / alignment * alignment;
  }

  template <class T>
  T* take(std::int64_t count) {
    T* part = reinterpret_cast<T*>(block_.begin.get() + used_);
    used_ += bytes<T>(count);
    if (used_ > block_.size) std::abort();  // a wrong size in the caller: better than writing past the end
    return part;
  }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t(alignment)); }
  };

  struct Block {
    std::size_t size = 0;
    std::unique_ptr<char, Free> begin;
  };

  class Blocks {
   public:
    static Blocks& mine() {
      static thread_local Blocks blocks;
      return blocks;
    }

    Block borrow(std::size_t bytes) {
      Block* best = nullptr;
      for (Block& block : kept_)
        if (block.begin && block.size >= bytes && (!best || block.size < best->size)) best = &block;
      if (best) return std::exchange(*best, Block{});
      const std::size_t size = std::max<std::size_t>(bytes, 1);
      return {size, std::unique_ptr<char, Free>(static_cast<char*>(::operator new(size, std::align_val_t(alignment))))};
    }

    // Takes the place of the smallest block that is kept, if that is smaller.
    void give_back(Block block) {
      if (block.size > most_bytes) return;
      Block* smallest = &kept_[0];
      for (Block& kept : kept_)
        if (kept.size < smallest->size) smallest = &kept;
      if (smallest->size < block.size) *smallest = std::move(block);
    }

   private:
#if defined(__SANITIZE_ADDRESS__)
    static constexpr std::size_t most_bytes = 0;  // an access past the end of a kept block would go unnoticed
#else
    static constexpr std::size_t most_bytes = std::size_t{2} << 20;
#endif
    Block kept_[3];
  };

  Block block_;
  std::size_t used_ = 0;
};

}  // namespace pare
