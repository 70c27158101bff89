// Sums the gradients of a training step over the processes of a job, while backward still runs.
//
//   parameters ─► buckets, the last parameters first ─► begin_last(): a bucket whose gradients are
//   all there is summed at once ─► finish(): the rest, then every gradient is the sum
//
// Backward reaches the last layers first, so their sums travel while it goes on to the first ones.
// All processes sum all buckets in the same order, whatever gradients they have: what a process
// lacks counts as 0. Sums are float32. In a job of one process nothing is done. Reference: torch
// 2.11's DistributedDataParallel.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "vlm/io/safetensors.h"

namespace vlm::train {

class Job;

class GradientSums {
 public:
  // `job` must outlive the sums.
  GradientSums(const Job& job, const NamedTensors& parameters, std::int64_t bucket_bytes);
  ~GradientSums();
  GradientSums(const GradientSums&) = delete;
  GradientSums& operator=(const GradientSums&) = delete;

  // Called before the last backward pass of a step: what it leaves in a parameter is final.
  void begin_last();
  // Called when a step's passes begin anew (for lack of memory). What has been summed stays so, as
  // it was final.
  void restart();
  // Waits until the parameters' gradients are the sums. A parameter without gradient on every
  // process gets none.
  void finish();

  // Buckets whose sum began before the last `finish`.
  std::int64_t begun_early() const { return begun_early_; }

 private:
  struct Bucket {
    std::vector<at::Tensor> parameters;
    std::size_t ready = 0;  // of them, in this step
    at::Tensor sums;        // [values], once begun
  };
  class Hook;

  void add_ready(std::size_t bucket);
  void begin_next();
  void use_sums(const std::vector<double>& has_gradient);

  const Job& job_;
  std::vector<Bucket> buckets_;
  std::size_t begun_ = 0;  // buckets of this step
  bool is_last_ = false;
  std::int64_t begun_early_ = 0;
};

}  // namespace vlm::train
