// The operators in the namespace that each build for the kernel hub has to itself.
#define PARE_NAMESPACE TORCH_EXTENSION_NAME
#include "module.cpp"
#include "ops.cpp"
