// The kernels for x86-64 with AVX2, FMA and F16C.
#include "core/kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define PARE_ISA avx2
#define PARE_ISA_AVX2
#define PARE_VECTOR_BYTES 32

#include "core/kernels_impl.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
