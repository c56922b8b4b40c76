// The kernels for x86-64 with AVX-512 (F, BW, DQ, VL: every server since Skylake, Zen 4).
#include "core/kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

#define PARE_ISA avx512
#define PARE_ISA_AVX512
#define PARE_VECTOR_BYTES 64

#include "core/kernels_impl.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
