// AdamW with moments in a byte a value.
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "train/optimizer/optimizer.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kLeast8bit = 4096;       // values; smaller parameters keep float32 moments
constexpr std::int64_t kPieceValues = 1 << 18;  // widened at a time on a CPU; whole blocks

// Values `begin` … `begin + count` of stored codes, sharing their memory.
BlockwiseCodes slice(const BlockwiseCodes& stored, std::int64_t begin, std::int64_t count) {
  const std::int64_t blocks = (count + kBlockwiseBlock - 1) / kBlockwiseBlock;
  return {stored.codes.narrow(0, begin, count),
          stored.scales.narrow(0, begin / kBlockwiseBlock, blocks)};
}

void store(const BlockwiseCodes& to, const at::Tensor& values, const at::Tensor& levels) {
  const BlockwiseCodes found = quantize_blockwise(values, levels);
  at::Tensor(to.codes).copy_(found.codes);
  at::Tensor(to.scales).copy_(found.scales);
}

BlockwiseCodes make_zeros(const at::Tensor& parameter) {
  const std::int64_t count = parameter.numel();
  const auto options = parameter.options().requires_grad(false);
  return {at::zeros({count}, options.dtype(at::kByte)),
          at::zeros({(count + kBlockwiseBlock - 1) / kBlockwiseBlock}, options.dtype(at::kFloat))};
}

}  // namespace

AdamW8bit::AdamW8bit(const NamedTensors& parameters, const OptimizerOptions& options,
                     const std::vector<double>& rate_factors)
    : Optimizer(parameters, rate_factors), options_(options) {
  NamedTensors small;
  std::vector<double> factors;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].second;
    if (parameter.numel() < kLeast8bit) {
      small.push_back(parameters_[i]);
      factors.push_back(rate_factors_[i]);
    } else {
      // The number of steps is read by the host alone, so it stays there.
      large_.push_back(
          {i, make_zeros(parameter), make_zeros(parameter), at::zeros({}, at::kFloat)});
    }
  }
  small_ = std::make_unique<AdamW>(small, options, factors);
}

void AdamW8bit::step(double learning_rate) {
  const c10::NoGradGuard no_grad;
  small_->step(learning_rate);
  for (Moments& moments : large_) {
    if (!parameters_[moments.index].second.grad().defined()) continue;
    update(moments, learning_rate * rate_factors_[moments.index]);
  }
}

void AdamW8bit::update(Moments& moments, double learning_rate) {
  const auto& [name, parameter] = parameters_[moments.index];
  const at::Tensor signed_levels = dynamic_levels(true, parameter.device());
  const at::Tensor levels = dynamic_levels(false, parameter.device());
  const double steps = moments.steps.add_(1).item<double>();
  const double first_correction = 1 - std::pow(options_.beta1, steps);
  const double second_correction = std::sqrt(1 - std::pow(options_.beta2, steps));
  const double decay = has_weight_decay(name) ? options_.weight_decay : 0;
  // In the order of memory: a branch that is tied to another's lies there transposed.
  const bool is_turned = !parameter.is_contiguous();
  const at::Tensor values = (is_turned ? parameter.t() : parameter).view({-1});
  const at::Tensor grads = (is_turned ? parameter.grad().t() : parameter.grad()).reshape({-1});
  const std::int64_t piece = parameter.is_cpu() ? kPieceValues : values.numel();
  for (std::int64_t begin = 0; begin < values.numel(); begin += piece) {
    const std::int64_t count = std::min(piece, values.numel() - begin);
    const BlockwiseCodes first_codes = slice(moments.first, begin, count);
    const BlockwiseCodes second_codes = slice(moments.second, begin, count);
    const at::Tensor grad = grads.narrow(0, begin, count).to(at::kFloat);
    at::Tensor first = dequantize_blockwise(first_codes, signed_levels);
    at::Tensor second = dequantize_blockwise(second_codes, levels);
    first.mul_(options_.beta1).add_(grad, 1 - options_.beta1);
    second.mul_(options_.beta2).addcmul_(grad, grad, 1 - options_.beta2);
    at::Tensor own = values.narrow(0, begin, count);
    at::Tensor wide = own.to(at::kFloat);  // the parameter's own memory when it is float32
    if (decay > 0) wide.mul_(1 - learning_rate * decay);
    const at::Tensor size = second.sqrt().div_(second_correction).add_(options_.epsilon);
    wide.addcdiv_(first, size, -learning_rate / first_correction);
    if (!wide.is_same(own)) own.copy_(wide);
    store(first_codes, first, signed_levels);
    store(second_codes, second, levels);
  }
}

NamedTensors AdamW8bit::state() const {
  NamedTensors state = small_->state();
  for (const Moments& moments : large_) {
    const std::string& name = parameters_[moments.index].first;
    state.emplace_back("exp_avg.codes." + name, moments.first.codes);
    state.emplace_back("exp_avg.scales." + name, moments.first.scales);
    state.emplace_back("exp_avg_sq.codes." + name, moments.second.codes);
    state.emplace_back("exp_avg_sq.scales." + name, moments.second.scales);
    state.emplace_back("step." + name, moments.steps);
  }
  return state;
}

}  // namespace vlm::train
