// The extension module, pare_kernels._C: importing it runs the registrations in ops.cpp. Limited API: one file for every Python.
#include <Python.h>

#include "core/common.h"

// libstdc++ asks glibc 2.32 and later whether there is one thread, to count references without atomics. There may always be more, and
// without the question one file serves older versions too.
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
#endif

#define PARE_PASTE_(a, b) a##b
#define PARE_PASTE(a, b) PARE_PASTE_(a, b)

extern "C" PyMODINIT_FUNC PARE_PASTE(PyInit_, TORCH_EXTENSION_NAME)() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, PARE_STRING(TORCH_EXTENSION_NAME), nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
