#include "train/jobs/gradient_sums.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>

#include "train/jobs/distributed.h"

namespace vlm::train {

// Called by backward when a parameter has its gradient.
class GradientSums::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(GradientSums& sums, std::size_t bucket) : sums_(sums), bucket_(bucket) {}
  void operator()(const at::Tensor& /*parameter*/) override { sums_.add_ready(bucket_); }

 private:
  GradientSums& sums_;
  std::size_t bucket_;
};

GradientSums::GradientSums(const Job& job, const NamedTensors& parameters,
                           std::int64_t bucket_bytes)
    : job_(job) {
  if (job.size() == 1) return;
  std::int64_t bytes = 0;
  for (auto item = parameters.rbegin(); item != parameters.rend(); ++item) {
    if (bytes == 0) buckets_.emplace_back();
    buckets_.back().parameters.push_back(item->second);
    bytes += item->second.numel() * 4;
    if (bytes >= bucket_bytes) bytes = 0;
  }
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    for (const at::Tensor& parameter : buckets_[i].parameters) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameter, std::make_unique<Hook>(*this, i));
    }
  }
}

GradientSums::~GradientSums() {
  for (const Bucket& bucket : buckets_) {
    for (const at::Tensor& parameter : bucket.parameters) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
    }
  }
}

void GradientSums::begin_last() {
  is_last_ = !buckets_.empty() && job_.sums_in_background(buckets_[0].parameters[0].device());
}

void GradientSums::restart() {
  is_last_ = false;
  for (Bucket& bucket : buckets_) bucket.ready = 0;
}

void GradientSums::add_ready(std::size_t bucket) {
  if (!is_last_) return;
  TORCH_CHECK(++buckets_[bucket].ready <= buckets_[bucket].parameters.size(),
              "a gradient changed after it was taken for final");
  while (begun_ < buckets_.size() && buckets_[begun_].ready == buckets_[begun_].parameters.size()) {
    begin_next();
  }
}

void GradientSums::begin_next() {
  const c10::NoGradGuard no_grad;
  Bucket& bucket = buckets_[begun_];
  std::vector<at::Tensor> flat;
  for (const at::Tensor& parameter : bucket.parameters) {
    const at::Tensor& grad = parameter.grad();
    flat.push_back(grad.defined()
                       ? grad.reshape({-1}).to(at::kFloat)
                       : at::zeros({parameter.numel()}, parameter.options().dtype(at::kFloat)));
  }
  bucket.sums = at::cat(flat);
  // Its place is taken by a part of the sums.
  for (const at::Tensor& parameter : bucket.parameters) parameter.mutable_grad() = at::Tensor();
  flat.clear();
  ++begun_;
  job_.begin_sum(bucket.sums);
}

void GradientSums::finish() {
  if (buckets_.empty()) return;
  const c10::NoGradGuard no_grad;
  is_last_ = false;
  begun_early_ = static_cast<std::int64_t>(begun_);
  std::vector<double> has_gradient;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    for (const at::Tensor& parameter : buckets_[i].parameters) {
      // All of a bucket that has begun were there.
      has_gradient.push_back(i < begun_ || parameter.grad().defined() ? 1 : 0);
    }
  }
  while (begun_ < buckets_.size()) begin_next();
  has_gradient = job_.sum(std::move(has_gradient));
  job_.end_sums();
  use_sums(has_gradient);
  begun_ = 0;
  restart();
}

namespace {

// A part of the sums as the gradient of a parameter, laid out as that is.
at::Tensor as_gradient(const at::Tensor& sums, const at::Tensor& parameter) {
  const at::Tensor grad = sums.view(parameter.sizes()).to(parameter.scalar_type());
  return parameter.is_contiguous() ? grad : at::empty_like(parameter).copy_(grad);
}

}  // namespace

void GradientSums::use_sums(const std::vector<double>& has_gradient) {
  std::size_t number = 0;
  for (Bucket& bucket : buckets_) {
    std::int64_t begin = 0;
    for (const at::Tensor& parameter : bucket.parameters) {
      const std::int64_t count = parameter.numel();
      if (has_gradient[number++] > 0) {
        parameter.mutable_grad() = as_gradient(bucket.sums.narrow(0, begin, count), parameter);
      }
      begin += count;
    }
    bucket.sums = at::Tensor();
  }
}

}  // namespace vlm::train
