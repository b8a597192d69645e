// What the files over c10d share: the handles that cross to Rust, and how a failed collective is told from other errors.
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

// Runs a collective. Its failure is marked in the text, so that it is known for what it is when it comes out of a backward pass.
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
