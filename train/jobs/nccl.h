// Sums of tensors over the GPUs of a job by NCCL, opened at run time.
//
// The program links no CUDA library; NCCL comes with LibTorch's CUDA libraries, which are open
// already when a tensor lies on a GPU (or it is in the program already, as in tests). Work goes to
// a stream of its own, so that backward's kernels and the network are busy together.
// Reference: NCCL 2's C interface (nccl.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace vlm::train {

struct NcclPlace {
  std::int64_t rank = 0, size = 1;
};

class Nccl {
 public:
  virtual ~Nccl() = default;
  // False when the library isn't installed; then sum() must not be called.
  virtual bool is_open() const = 0;
  // Asks for the sum over all ranks, in place: float32, contiguous, on the current GPU. It begins
  // behind what the GPU was asked to do before. Throws Error.
  virtual void sum(at::Tensor& tensor) = 0;
  // Waits until all sums are there; before, the tensors may not be used. When another process is
  // lost, or `timeout_s` have passed, the sums are given up, so that nothing waits for them for
  // ever, and std::runtime_error is thrown.
  virtual void wait(double timeout_s) = 0;
};

// Called by all ranks together. `broadcast` returns the text of rank 0 on every rank.
std::unique_ptr<Nccl> open_nccl(const NcclPlace& place,
                                const std::function<std::string(std::string)>& broadcast);

}  // namespace vlm::train
