// The kernels for every machine: SSE2 on x86-64, NEON on arm64, whatever the compiler makes of 16-byte vectors elsewhere.
#define PARE_ISA baseline
#define PARE_VECTOR_BYTES 16

#include "core/kernels_impl.h"
