#include "train/jobs/nccl.h"

#include <dlfcn.h>

#include <cstring>

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
constexpr int kFloat32 = 7;
constexpr int kSum = 0;

struct Library {
  int (*get_unique_id)(UniqueId*) = nullptr;
  int (*init_rank)(Communicator*, int, UniqueId, int) = nullptr;
  int (*all_reduce)(const void*, void*, std::size_t, int, int, Communicator, void*) = nullptr;
  int (*destroy)(Communicator) = nullptr;
  const char* (*error_text)(int) = nullptr;

  bool is_open() const { return get_unique_id && init_rank && all_reduce && destroy && error_text; }
};

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
}

Library open_library() {
  Library library;
  void* handle = ::dlopen("libnccl.so.2", RTLD_NOW);
  if (handle == nullptr) return library;
  find(handle, "ncclGetUniqueId", library.get_unique_id);
  find(handle, "ncclCommInitRank", library.init_rank);
  find(handle, "ncclAllReduce", library.all_reduce);
  find(handle, "ncclCommDestroy", library.destroy);
  find(handle, "ncclGetErrorString", library.error_text);
  return library;
}

class OpenNccl : public Nccl {
 public:
  OpenNccl(const Library& library, const NcclPlace& place, const UniqueId& id) : library_(library) {
    check(library_.init_rank(&communicator_, static_cast<int>(place.size), id,
                             static_cast<int>(place.rank)),
          "NCCL can't join the job's GPUs");
  }
  ~OpenNccl() override { library_.destroy(communicator_); }

  bool is_open() const override { return true; }

  void sum(at::Tensor& tensor) override {
    TORCH_CHECK(tensor.is_cuda() && tensor.is_contiguous() && tensor.scalar_type() == at::kFloat);
    void* data = tensor.data_ptr();
    check(library_.all_reduce(data, data, static_cast<std::size_t>(tensor.numel()), kFloat32, kSum,
                              communicator_, /*stream=*/nullptr),
          "NCCL can't sum gradients");
  }

 private:
  void check(int code, const char* what) const {
    if (code != kSuccess) throw Error({.what = what, .got = library_.error_text(code)});
  }

  Library library_;
  Communicator communicator_ = nullptr;
};

class ClosedNccl : public Nccl {
 public:
  bool is_open() const override { return false; }
  void sum(at::Tensor& /*tensor*/) override {}
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
