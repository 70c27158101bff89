// at::cuda::CUDAGraph of this device, with the names that LibTorch's library exports.
#include "tests/support/simulated_cuda/graph.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/memory.h"

enum cudaStreamCaptureMode : int {};

namespace simulated_cuda {

struct Saved {
  std::uint64_t serial;
  std::vector<std::byte> bytes;
};

struct Recording {
  std::uint64_t pool = new_pool();
  std::vector<std::function<void()>> work;
  std::map<void*, Saved> saved;  // what was written to, as it was before

  ~Recording() { release_pool(pool); }
};

namespace {

thread_local Recording* current = nullptr;

void put_back(const Recording& recording) {
  for (const auto& [address, saved] : recording.saved) {
    if (serial_of(address) != saved.serial) continue;
    std::memcpy(bytes_of(address), saved.bytes.data(), saved.bytes.size());
  }
  spoil_pool(recording.pool);
}

}  // namespace

bool is_recording() {
  return current != nullptr;
}

void refuse_while_recording(const char* what) {
  TORCH_CHECK(!is_recording(),
              "CUDA error: operation not permitted when stream is capturing: ", what);
}

Place::Place(const at::Tensor& tensor)
    : address_(tensor.storage().mutable_data()),
      serial_(serial_of(address_)),
      is_of_recording_(current != nullptr && pool_of(address_) == current->pool),
      bytes_(tensor.storage().nbytes()),
      sizes_(tensor.sizes().vec()),
      strides_(tensor.strides().vec()),
      offset_(tensor.storage_offset()),
      dtype_(tensor.dtype()) {}

at::Tensor Place::tensor() const {
  TORCH_CHECK(is_of_recording_ || address_ == nullptr || serial_of(address_) == serial_,
              "the simulated GPU replays work on memory that was given back");
  c10::DataPtr data(address_, c10::Device(c10::kCUDA, 0));
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes_, std::move(data), nullptr,
                       /*resizable=*/false);
  auto impl = c10::make_intrusive<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), dtype_);
  impl->set_sizes_and_strides(sizes_, strides_, offset_);
  return at::Tensor(std::move(impl));
}

void note_write(const at::Tensor& target) {
  if (current == nullptr || !target.defined() || target.numel() == 0) return;
  void* const address = target.storage().mutable_data();
  if (pool_of(address) == current->pool) return;
  const auto [entry, is_new] = current->saved.try_emplace(address);
  if (!is_new) return;
  const std::byte* const bytes = bytes_of(address);
  entry->second = {serial_of(address), {bytes, bytes + target.storage().nbytes()}};
}

void record(std::function<void()> again) {
  if (current != nullptr) current->work.push_back(std::move(again));
}

}  // namespace simulated_cuda

namespace at::cuda {

class CUDAGraph {
 public:
  explicit CUDAGraph(bool keep_graph);
  ~CUDAGraph();
  void capture_begin(std::pair<unsigned long long, unsigned long long> pool,
                     cudaStreamCaptureMode mode);
  void capture_end();
  void replay();

 private:
  std::unique_ptr<simulated_cuda::Recording> recording_;
  bool is_whole_ = false;
};

CUDAGraph::CUDAGraph(bool) : recording_(std::make_unique<simulated_cuda::Recording>()) {}
CUDAGraph::~CUDAGraph() = default;

void CUDAGraph::capture_begin(std::pair<unsigned long long, unsigned long long>,
                              cudaStreamCaptureMode) {
  const c10::impl::VirtualGuardImpl devices(c10::kCUDA);
  TORCH_CHECK(devices.getStream(devices.getDevice()).id() != 0,
              "CUDA graphs must be captured on a non-default stream.");
  simulated_cuda::current = recording_.get();
  simulated_cuda::take_from_pool(recording_->pool);
}

void CUDAGraph::capture_end() {
  simulated_cuda::current = nullptr;
  simulated_cuda::take_from_pool(0);
  simulated_cuda::put_back(*recording_);
  is_whole_ = true;
}

void CUDAGraph::replay() {
  TORCH_CHECK(is_whole_, "Called CUDAGraph::replay without a preceding successful capture.");
  simulated_cuda::count_operator("graph launch");
  for (const auto& again : recording_->work) again();
}

}  // namespace at::cuda
