// PyTorch's own process groups: the store for the rendezvous, Gloo, NCCL, and synchronous collectives.

#include "c10d.h"
#include "guarded.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <cstdlib>

using std::chrono::milliseconds;

c10::intrusive_ptr<c10d::Work> start_all_reduce(c10d::Backend& backend, at::Tensor tensor, c10d::ReduceOp op) {
  std::vector<at::Tensor> tensors{tensor};
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  return backend.allreduce(tensors, options);
}

C10_DECLARE_int(caffe2_log_level);

namespace {

// c10d logs every lost connection and every attempt to connect with a stack trace. The important part is returned
// as an error; the variable that PyTorch reads enables the full log.
void log_less() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 3;
}

void all_gather(c10d::Backend& backend, at::Tensor out, at::Tensor in) {
  collective([&] { backend._allgather_base(out, in)->wait(); });
}

void reduce_scatter(c10d::Backend& backend, at::Tensor out, at::Tensor in) {
  collective([&] { backend._reduce_scatter_base(out, in)->wait(); });
}

at::Tensor empty_rows(const at::Tensor& like, int64_t rows) {
  auto shape = like.sizes().vec();
  shape[0] = rows;
  return at::empty(shape, like.options());
}

using Backend = c10::intrusive_ptr<c10d::Backend>;

// A graph may outlive the process group, so it keeps the backend.
void keep(torch::autograd::AutogradContext* context, const Backend& backend) {
  context->saved_data["group"] = c10::IValue::make_capsule(backend);
}
Backend kept(torch::autograd::AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<c10d::Backend>(context->saved_data["group"].toCapsule());
}

// The backward pass of an all-gather is a reduce-scatter: each process gets the summed gradients of its rows.
struct AllGather : torch::autograd::Function<AllGather> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const Backend& backend) {
    keep(context, backend);
    auto out = empty_rows(x, x.size(0) * backend->getSize());
    all_gather(*backend, out, x.contiguous());
    return out;
  }
  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, const torch::autograd::variable_list& gradients) {
    auto backend = kept(context);
    auto out = empty_rows(gradients[0], gradients[0].size(0) / backend->getSize());
    reduce_scatter(*backend, out, gradients[0].contiguous());
    return {out, at::Tensor()};
  }
};

struct AllReduce : torch::autograd::Function<AllReduce> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const Backend& backend) {
    keep(context, backend);
    return sum(backend, x);
  }
  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, const torch::autograd::variable_list& gradients) {
    return {sum(kept(context), gradients[0]), at::Tensor()};
  }
  static at::Tensor sum(const Backend& backend, const at::Tensor& x) {
    auto out = x.clone(at::MemoryFormat::Contiguous);
    collective([&] { start_all_reduce(*backend, out, c10d::ReduceOp::SUM)->wait(); });
    return out;
  }
};

} // namespace

extern "C" {

char* mm_store_open(
    const char* host, uint16_t port, bool is_server, int64_t timeout_ms, const char* prefix, MmStore** out) {
  return guarded([&] {
    log_less();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *out = new MmStore{c10::make_intrusive<c10d::PrefixStore>(prefix, store)};
  });
}
void mm_store_free(MmStore* store) { delete store; }

char* mm_store_set(MmStore* store, const char* key, const uint8_t* bytes, size_t count) {
  return guarded([&] { store->store->set(key, std::vector<uint8_t>(bytes, bytes + count)); });
}

char* mm_store_get(MmStore* store, const char* key, int64_t timeout_ms, uint8_t** bytes, size_t* count) {
  return guarded([&] {
    store->store->wait({key}, milliseconds(timeout_ms));
    auto value = store->store->get(key);
    *count = value.size();
    *bytes = static_cast<uint8_t*>(malloc(value.size() + 1));
    std::copy(value.begin(), value.end(), *bytes);
  });
}
void mm_free_bytes(uint8_t* bytes) { free(bytes); }

char* mm_store_has(MmStore* store, const char* key, bool* has) {
  return guarded([&] { *has = store->store->check({key}); });
}

char* mm_store_add(MmStore* store, const char* key, int64_t amount, int64_t* sum) {
  return guarded([&] { *sum = store->store->add(key, amount); });
}

char* mm_group_new(
    MmStore* store, const char* name, bool nccl, int rank, int size, int64_t timeout_ms, MmProcessGroup** out) {
  return guarded([&] {
    auto own = c10::make_intrusive<c10d::PrefixStore>(name, store->store);
    if (nccl) {
#ifdef USE_C10D_NCCL
      auto options = c10d::ProcessGroupNCCL::Options::create();
      options->timeout = milliseconds(timeout_ms);
      *out = new MmProcessGroup{c10::make_intrusive<c10d::ProcessGroupNCCL>(own, rank, size, options)};
#else
      TORCH_CHECK(false, "this libtorch has no NCCL");
#endif
    } else {
      auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
      // The variable that torch.distributed reads, for machines whose hostname leads to the wrong network.
      const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
      bool lazy = c10d::getDefaultGlooLazyInit();
      options->devices.push_back(
          interface != nullptr ? c10d::ProcessGroupGloo::createDeviceForInterface(interface, lazy)
                               : c10d::ProcessGroupGloo::createDefaultDevice(lazy));
      *out = new MmProcessGroup{c10::make_intrusive<c10d::ProcessGroupGloo>(own, rank, size, options)};
    }
  });
}
void mm_group_free(MmProcessGroup* group) { delete group; }

char* mm_group_broadcast(MmProcessGroup* group, at::Tensor* tensor, int root) {
  return guarded([&] {
    collective([&] {
      std::vector<at::Tensor> tensors{tensor->detach()};
      c10d::BroadcastOptions options;
      options.rootRank = root;
      group->backend->broadcast(tensors, options)->wait();
    });
  });
}

char* mm_group_all_reduce(MmProcessGroup* group, at::Tensor* tensor, int op) {
  return guarded([&] {
    collective([&] {
      auto kind = static_cast<c10d::ReduceOp::RedOpType>(op);
      bool divides = kind == c10d::ReduceOp::AVG && group->backend->getBackendName() == c10d::GLOO_BACKEND_NAME;
      auto data = tensor->detach();
      start_all_reduce(*group->backend, data, divides ? c10d::ReduceOp::SUM : kind)->wait();
      if (divides) data.div_(group->backend->getSize());
    });
  });
}

char* mm_group_all_gather(MmProcessGroup* group, at::Tensor* out, const at::Tensor* in) {
  return guarded([&] { all_gather(*group->backend, *out, in->detach()); });
}

char* mm_group_exchange(MmProcessGroup* group, const at::Tensor* send, int to, at::Tensor* receive, int from) {
  return guarded([&] {
    collective([&] {
      auto& backend = *group->backend;
      std::vector<at::Tensor> sent{send->detach()}, received{receive->detach()};
      bool coalesces = backend.supportsCoalescing(); // NCCL: a single send or receive would deadlock
      if (coalesces) backend.startCoalescing();
      auto sending = backend.send(sent, to, 0);
      auto receiving = backend.recv(received, from, 0);
      if (coalesces) {
        backend.endCoalescing()->wait();
      } else {
        receiving->wait();
        sending->wait();
      }
    });
  });
}

char* mm_group_barrier(MmProcessGroup* group) {
  return guarded([&] { collective([&] { group->backend->barrier()->wait(); }); });
}

char* mm_all_gather_with_gradient(MmProcessGroup* group, const at::Tensor* x, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(AllGather::apply(*x, group->backend)); });
}

char* mm_all_reduce_with_gradient(MmProcessGroup* group, const at::Tensor* x, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(AllReduce::apply(*x, group->backend)); });
}

} // extern "C"
