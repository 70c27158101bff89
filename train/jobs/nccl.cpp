#include "train/jobs/nccl.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <thread>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::train {
namespace {

// The part of nccl.h that is used. Version 2 keeps these.
struct UniqueId {
  char bytes[128];
};
using Communicator = struct Opaque*;
constexpr int kSuccess = 0;
constexpr int kInProgress = 7;
constexpr int kFloat32 = 7;
constexpr int kSum = 0;
constexpr auto kPoll = std::chrono::microseconds(50);

struct Library {
  int (*get_unique_id)(UniqueId*) = nullptr;
  int (*init_rank)(Communicator*, int, UniqueId, int) = nullptr;
  int (*all_reduce)(const void*, void*, std::size_t, int, int, Communicator, void*) = nullptr;
  int (*destroy)(Communicator) = nullptr;
  int (*abort)(Communicator) = nullptr;
  int (*async_error)(Communicator, int*) = nullptr;
  const char* (*error_text)(int) = nullptr;

  bool is_open() const {
    return get_unique_id && init_rank && all_reduce && destroy && abort && async_error &&
           error_text;
  }
};

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
}

Library open_library() {
  Library library;
  const bool is_there = ::dlsym(RTLD_DEFAULT, "ncclAllReduce") != nullptr;
  void* handle = is_there ? RTLD_DEFAULT : ::dlopen("libnccl.so.2", RTLD_NOW);
  if (!is_there && handle == nullptr) return library;
  find(handle, "ncclGetUniqueId", library.get_unique_id);
  find(handle, "ncclCommInitRank", library.init_rank);
  find(handle, "ncclAllReduce", library.all_reduce);
  find(handle, "ncclCommDestroy", library.destroy);
  find(handle, "ncclCommAbort", library.abort);
  find(handle, "ncclCommGetAsyncError", library.async_error);
  find(handle, "ncclGetErrorString", library.error_text);
  return library;
}

class OpenNccl : public Nccl {
 public:
  OpenNccl(const Library& library, const NcclPlace& place, const UniqueId& id)
      : library_(library), stream_(devices_.getNewStream(devices_.getDevice())) {
    check(library_.init_rank(&communicator_, static_cast<int>(place.size), id,
                             static_cast<int>(place.rank)),
          "NCCL can't join the job's GPUs");
  }
  // Destroying waits for sums that a lost process never joins, so a failing run gives them up.
  ~OpenNccl() override {
    if (communicator_ == nullptr) return;
    std::uncaught_exceptions() > 0 ? library_.abort(communicator_)
                                   : library_.destroy(communicator_);
  }

  bool is_open() const override { return true; }

  void sum(at::Tensor& tensor) override {
    TORCH_CHECK(tensor.is_cuda() && tensor.is_contiguous() && tensor.scalar_type() == at::kFloat);
    c10::Event made(at::kCUDA);
    made.record(devices_.getStream(devices_.getDevice()));
    made.block(stream_);
    void* data = tensor.data_ptr();
    check(library_.all_reduce(data, data, static_cast<std::size_t>(tensor.numel()), kFloat32, kSum,
                              communicator_, devices_.getStreamNativeHandle(stream_)),
          "NCCL can't sum gradients");
  }

  void wait(double timeout_s) override {
    c10::Event done(at::kCUDA);
    done.record(stream_);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    for (;;) {
      int state = kSuccess;
      const int code = library_.async_error(communicator_, &state);
      if (code != kSuccess) give_up(library_.error_text(code));
      if (state != kSuccess && state != kInProgress) give_up(library_.error_text(state));
      if (done.query()) return;
      if (std::chrono::steady_clock::now() > end)
        give_up(concat("no sum within ", timeout_s, " s"));
      std::this_thread::sleep_for(kPoll);
    }
  }

 private:
  [[noreturn]] void give_up(const std::string& reason) {
    library_.abort(std::exchange(communicator_, nullptr));
    throw std::runtime_error("NCCL can't sum gradients: " + reason);
  }

  void check(int code, const char* what) const {
    if (code != kSuccess) throw Error({.what = what, .got = library_.error_text(code)});
  }

  Library library_;
  c10::impl::VirtualGuardImpl devices_{at::kCUDA};
  c10::Stream stream_;
  Communicator communicator_ = nullptr;
};

class ClosedNccl : public Nccl {
 public:
  bool is_open() const override { return false; }
  void sum(at::Tensor& /*tensor*/) override {}
  void wait(double /*timeout_s*/) override {}
};

}  // namespace

std::unique_ptr<Nccl> open_nccl(const NcclPlace& place,
                                const std::function<std::string(std::string)>& broadcast) {
  const Library library = open_library();
  UniqueId id = {};
  std::string text;
  if (library.is_open() && place.rank == 0 && library.get_unique_id(&id) == kSuccess) {
    text.assign(id.bytes, sizeof id.bytes);
  }
  text = broadcast(text);
  if (!library.is_open() || text.size() != sizeof id.bytes) {
    if (place.rank == 0) log_warning("NCCL isn't there: gradients go through the CPU");
    return std::make_unique<ClosedNccl>();
  }
  std::memcpy(id.bytes, text.data(), sizeof id.bytes);
  return std::make_unique<OpenNccl>(library, place, id);
}

}  // namespace vlm::train
