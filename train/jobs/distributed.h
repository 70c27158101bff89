// The processes of one job: their ranks, and the data that they exchange.
//
//   torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, …) ─► join_job ─► Job
//
// Every process ("rank") holds the whole model and takes its share of a step's batches; gradients
// are summed in buckets (gradient_sums.h), and rank 0 alone writes. Numbers and text go over Gloo
// on the CPU; gradients on a GPU over NCCL if it is installed, else over Gloo too. A single process
// is a job of size 1, in which these functions do nothing. Reference: torch 2.11's c10d and its
// env:// rendezvous. Every call is made by all ranks in the same order; when another process ended
// or doesn't answer in time, it throws Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "vlm/io/safetensors.h"

namespace vlm::train {

struct JobOptions {
  double timeout_s = 1800;  // to wait for other processes
};

// The place of this process in the job, from the environment.
struct JobPlace {
  std::int64_t rank = 0, size = 1;              // in the job
  std::int64_t local_rank = 0, local_size = 1;  // on this machine
};

// Throws Error for a variable that is missing, no number or out of range.
JobPlace find_job_place();

class Job {
 public:
  explicit Job(const JobPlace& place, const JobOptions& options);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  std::int64_t rank() const { return place_.rank; }
  std::int64_t size() const { return place_.size; }
  bool is_writer() const { return place_.rank == 0; }

  // The sums over all ranks.
  std::vector<double> sum(std::vector<double> values) const;
  // Asks for the sum of a float32 tensor over all ranks, in place; `end_sums` waits for all that
  // was asked for.
  void begin_sum(const at::Tensor& tensor) const;
  void end_sums() const;
  // Whether begin_sum returns at once, so that this process goes on meanwhile. On a GPU it does
  // once NCCL was opened, by the first sum.
  bool sums_in_background(at::Device device) const;
  // Copies the values of rank 0 to all ranks, in place.
  void broadcast(const NamedTensors& tensors) const;
  std::string broadcast(const std::string& text) const;
  // Every rank's text, in the order of the ranks.
  std::vector<std::string> gather(const std::string& text) const;
  // Called on all ranks when at least one has a failure (null: none). Throws the rank's own
  // failure, or an Error with the message of the first rank that has one.
  [[noreturn]] void fail_together(const std::exception_ptr& failure) const;

 private:
  struct Group;

  void sum_tensor(at::Tensor& tensor) const;
  [[noreturn]] void fail(const std::exception& error) const;

  JobPlace place_;
  JobOptions options_;
  std::unique_ptr<Group> group_;  // null in a job of size 1
};

// Joins the job that the environment describes. Blocks until all processes have joined.
std::unique_ptr<Job> join_job(const JobOptions& options);

// The GPU of this process: if `asked` names none by number, processes on one machine get one each.
at::Device choose_local_device(at::Device device, const std::string& asked);

}  // namespace vlm::train
