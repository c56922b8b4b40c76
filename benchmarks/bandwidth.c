/* What memory can do at best: a read and a copy with non-temporal stores. Built by bandwidth.py, called through ctypes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* The sum of `count` 64-bit words: eight independent sums, so that loads are all that it waits for. */
uint64_t read_words(const uint64_t *data, ptrdiff_t count, int threads) {
  uint64_t total = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : total)
  for (ptrdiff_t block = 0; block < count / 64; block++) {
    const uint64_t *words = data + 64 * block;
    uint64_t sum = 0;
    for (int i = 0; i < 64; i++) sum += words[i];
    total += sum;
  }
  return total;
}

/* Both pointers aligned to 64 bytes, `bytes` a multiple of 64. */
void stream_copy(char *to, const char *from, ptrdiff_t bytes, int threads) {
#if defined(__x86_64__)
#pragma omp parallel for schedule(static) num_threads(threads)
  for (ptrdiff_t line = 0; line < bytes / 64; line++) {
    const char *source = from + 64 * line;
    char *target = to + 64 * line;
#if defined(__AVX512F__)
    _mm512_stream_si512((__m512i *)target, _mm512_load_si512((const __m512i *)source));
#elif defined(__AVX__)
    for (int i = 0; i < 64; i += 32)
      _mm256_stream_si256((__m256i *)(target + i), _mm256_load_si256((const __m256i *)(source + i)));
#else
    for (int i = 0; i < 64; i += 16) _mm_stream_si128((__m128i *)(target + i), _mm_load_si128((const __m128i *)(source + i)));
#endif
  }
  _mm_sfence();
#else
  (void)threads;
  memcpy(to, from, (size_t)bytes);
#endif
}
