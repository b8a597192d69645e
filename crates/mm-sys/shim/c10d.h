// Shared by the files over c10d: the handles for Rust, and the mark of errors of collectives.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <stdexcept>
#include <string>

struct MmStore {
  c10::intrusive_ptr<c10d::Store> store;
};

struct MmProcessGroup {
  c10::intrusive_ptr<c10d::Backend> backend;
};

// Runs a collective. The message of its failure is marked, so that it is recognized when a backward pass throws it.
template <typename F>
auto collective(F&& body) {
  try {
    return body();
  } catch (const c10::Error& error) {
    throw std::runtime_error(std::string("collective failed: ") + error.what_without_backtrace());
  } catch (const std::exception& error) {
    throw std::runtime_error(std::string("collective failed: ") + error.what());
  }
}

c10::intrusive_ptr<c10d::Work> start_all_reduce(c10d::Backend& backend, at::Tensor tensor, c10d::ReduceOp op);
