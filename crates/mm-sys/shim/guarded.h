// How a failure crosses to Rust: as its text, in a buffer for mm_free_error to take.
#pragma once

#include <c10/util/Exception.h>
#include <cstring>
#include <exception>

template <typename F>
char* guarded(F&& body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}
