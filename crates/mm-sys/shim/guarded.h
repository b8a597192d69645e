// Errors are returned to Rust as text, in a buffer that mm_free_error frees.
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
