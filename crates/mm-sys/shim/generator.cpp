// Random number generators beside libtorch's own one of the process.

#include "guarded.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>
#include <vector>

extern "C" {

at::Generator* mm_new_generator(uint64_t seed) { return new at::Generator(at::detail::createCPUGenerator(seed)); }

void mm_free_generator(at::Generator* generator) { delete generator; }

char* mm_generator_randn(const at::Generator* generator, const int64_t* shape, size_t dims, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(at::randn(at::IntArrayRef(shape, dims), *generator)); });
}

} // extern "C"
