// The wheel has c10d's headers and gloo's code but not gloo's headers. What ProcessGroupGloo.hpp holds by pointer needs no more than
// these declarations; what it calls in line is declared and stands in libtorch_cpu.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

} // namespace gloo
