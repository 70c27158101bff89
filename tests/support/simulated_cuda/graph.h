// What the device records of a thread and does again when it is replayed, as CUDA graphs do.
//
// A recording computes nothing that stays: what it writes is put back at its end. It takes memory
// of its own, holds no tensor, and refuses waits and copies between host and device. A replay
// refuses memory that was given back since. Random draws, attention of whole sequences and resizing
// aren't recorded.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace simulated_cuda {

bool is_recording();

// Throws what CUDA throws, where this thread records.
void refuse_while_recording(const char* what);

// A device tensor's place in memory and its shape, without a hold on it.
class Place {
 public:
  explicit Place(const at::Tensor& tensor);
  // A tensor there. Throws when another allocation has the memory by now, or none.
  at::Tensor tensor() const;

 private:
  void* address_;
  std::uint64_t serial_;
  bool is_of_recording_;
  std::size_t bytes_;
  std::vector<std::int64_t> sizes_, strides_;
  std::int64_t offset_;
  caffe2::TypeMeta dtype_;
};

// Both for whatever changes device memory, and without effect where this thread doesn't record:
// before the change, and behind it with what a replay does.
void note_write(const at::Tensor& target);
void record(std::function<void()> again);

}  // namespace simulated_cuda
