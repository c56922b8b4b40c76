// Chooses the kernels for the CPU that runs them.
#include <cstdlib>
#include <cstring>

#include "core/kernels.h"

namespace pare {

namespace baseline {
extern const InstructionSet table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const InstructionSet table;
}
namespace avx512 {
extern const InstructionSet table;
}
#endif

namespace {

struct Available {
  const InstructionSet* sets[3];
  int count = 0;

  Available() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      sets[count++] = &avx512::table;
    if (has_avx2) sets[count++] = &avx2::table;
#endif
    sets[count++] = &baseline::table;
  }

#if defined(__x86_64__)
  // CPUID leaf 1, ECX bit 29; older compilers do not know the name "f16c".
  static bool has_f16c() {
    unsigned a = 1, b, c = 0, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (c >> 29) & 1;
  }
#endif
};

const Available& available() {
  static const Available found;
  return found;
}

}  // namespace

const InstructionSet* const* instruction_sets(int* count) {
  *count = available().count;
  return available().sets;
}

const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
    const Available& found = available();
    const char* wanted = std::getenv("PARE_KERNELS_CPU");
    for (int i = 0; wanted && i < found.count; ++i)
      if (std::strcmp(wanted, found.sets[i]->kernels.name) == 0) return found.sets[i]->kernels;
    return found.sets[0]->kernels;
  }();
  return chosen;
}

}  // namespace pare
