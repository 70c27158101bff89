// AdamW with moments in a byte a value.
#include <ATen/ops/_foreach_addcdiv.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "train/optimizer/optimizer.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kLeast8bit = 4096;       // values; smaller parameters keep float32 moments
constexpr std::int64_t kPieceValues = 1 << 18;  // widened at a time on a CPU; whole blocks
constexpr std::int64_t kChunkValues = 1 << 22;  // the same on a GPU: some 100 MB

std::int64_t count_blocks(std::int64_t values) {
  return (values + kBlockwiseBlock - 1) / kBlockwiseBlock;
}

// Values `begin` … `begin + count` of stored codes, sharing their memory.
BlockwiseCodes slice(const BlockwiseCodes& stored, std::int64_t begin, std::int64_t count) {
  return {stored.codes.narrow(0, begin, count),
          stored.scales.narrow(0, begin / kBlockwiseBlock, count_blocks(count))};
}

void store(const BlockwiseCodes& to, const at::Tensor& values, const at::Tensor& levels) {
  const BlockwiseCodes found = quantize_blockwise(values, levels);
  at::Tensor(to.codes).copy_(found.codes);
  at::Tensor(to.scales).copy_(found.scales);
}

BlockwiseCodes make_zeros(std::int64_t count, at::Device device) {
  const auto options = at::TensorOptions(device);
  return {at::zeros({count}, options.dtype(at::kByte)),
          at::zeros({count_blocks(count)}, options.dtype(at::kFloat))};
}

// In the order of memory: a branch that is tied to another's lies there transposed.
at::Tensor in_memory_order(const at::Tensor& t, const at::Tensor& parameter) {
  return parameter.is_contiguous() ? t : t.t();
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
      large_.push_back({i, {}, {}, at::zeros({}, at::kFloat)});
    }
  }
  join_chunks();
  small_ = std::make_unique<AdamW>(small, options, factors);
}

void AdamW8bit::step(double learning_rate) {
  const c10::NoGradGuard no_grad;
  small_->step(learning_rate);
  for (Chunk& chunk : chunks_) {
    if (is_joint(chunk)) {
      update_joint(chunk, learning_rate);
      continue;
    }
    for (const std::size_t i : chunk.members) {
      Moments& moments = large_[i];
      if (!parameters_[moments.index].second.grad().defined()) continue;
      update(moments, learning_rate * rate_factors_[moments.index]);
    }
  }
}

double AdamW8bit::decay_of(const Moments& moments) const {
  const auto& [name, parameter] = parameters_[moments.index];
  return has_weight_decay(name, parameter) ? options_.weight_decay : 0;
}

// Parameters that a GPU updates together lie behind each other in one chunk, each from a whole
// block on. On a CPU, which gains nothing by it, each is a chunk.
void AdamW8bit::join_chunks() {
  std::map<std::pair<double, double>, std::size_t> open;
  for (std::size_t i = 0; i < large_.size(); ++i) {
    const Moments& moments = large_[i];
    const at::Tensor& parameter = parameters_[moments.index].second;
    const std::int64_t size = count_blocks(parameter.numel()) * kBlockwiseBlock;
    const std::pair key(decay_of(moments), rate_factors_[moments.index]);
    const auto found = open.find(key);
    const bool fits = !parameter.is_cpu() && found != open.end() &&
                      chunks_[found->second].size + size <= kChunkValues;
    const std::size_t place = fits ? found->second : chunks_.size();
    if (!fits) chunks_.emplace_back();
    chunks_[place].members.push_back(i);
    chunks_[place].size += size;
    open[key] = place;
  }
  for (Chunk& chunk : chunks_) {
    const at::Device device = parameters_[large_[chunk.members[0]].index].second.device();
    chunk.first = make_zeros(chunk.size, device);
    chunk.second = make_zeros(chunk.size, device);
    std::int64_t begin = 0;
    for (const std::size_t i : chunk.members) {
      const std::int64_t count = parameters_[large_[i].index].second.numel();
      large_[i].first = slice(chunk.first, begin, count);
      large_[i].second = slice(chunk.second, begin, count);
      begin += count_blocks(count) * kBlockwiseBlock;
    }
  }
}

// Whether all of a chunk can take this step as one.
bool AdamW8bit::is_joint(const Chunk& chunk) const {
  const at::Tensor& steps = large_[chunk.members[0]].steps;
  return chunk.members.size() > 1 &&
         std::all_of(chunk.members.begin(), chunk.members.end(), [&](std::size_t i) {
           const at::Tensor& parameter = parameters_[large_[i].index].second;
           return parameter.grad().defined() && parameter.scalar_type() == at::kFloat &&
                  large_[i].steps.item<float>() == steps.item<float>();
         });
}

void AdamW8bit::update_joint(Chunk& chunk, double learning_rate) {
  std::vector<at::Tensor> grads, parameters, firsts, sizes;
  double steps = 0;
  for (const std::size_t i : chunk.members) {
    const at::Tensor& parameter = parameters_[large_[i].index].second;
    steps = large_[i].steps.add_(1).item<double>();
    grads.push_back(in_memory_order(parameter.grad(), parameter).reshape({-1}));
    parameters.push_back(in_memory_order(parameter, parameter));
    const std::int64_t rest = count_blocks(parameter.numel()) * kBlockwiseBlock - parameter.numel();
    if (rest > 0) grads.push_back(zeros_of(parameter).narrow(0, 0, rest));
  }
  const Moments& any = large_[chunk.members[0]];
  const double rate = learning_rate * rate_factors_[any.index];
  const Move move = move_moments(chunk.first, chunk.second, at::cat(grads), steps);
  std::int64_t begin = 0;
  for (const at::Tensor& parameter : parameters) {
    const auto part = [&](const at::Tensor& all) {
      return all.narrow(0, begin, parameter.numel()).view(parameter.sizes());
    };
    firsts.push_back(part(move.first));
    sizes.push_back(part(move.size));
    begin += count_blocks(parameter.numel()) * kBlockwiseBlock;
  }
  if (decay_of(any) > 0) at::_foreach_mul_(parameters, 1 - rate * decay_of(any));
  const double first_correction = 1 - std::pow(options_.beta1, steps);
  at::_foreach_addcdiv_(parameters, firsts, sizes, -rate / first_correction);
}

const at::Tensor& AdamW8bit::zeros_of(const at::Tensor& parameter) {
  if (!zeros_.defined()) {
    zeros_ = at::zeros({kBlockwiseBlock}, parameter.options().requires_grad(false));
  }
  return zeros_;
}

// Takes a gradient into stored moments. A parameter then moves by −rate · first / size.
AdamW8bit::Move AdamW8bit::move_moments(const BlockwiseCodes& first_codes,
                                        const BlockwiseCodes& second_codes, const at::Tensor& grad,
                                        double steps) const {
  const at::Tensor signed_levels = dynamic_levels(true, grad.device());
  const at::Tensor levels = dynamic_levels(false, grad.device());
  at::Tensor first = dequantize_blockwise(first_codes, signed_levels);
  first.mul_(options_.beta1).add_(grad, 1 - options_.beta1);
  store(first_codes, first, signed_levels);
  at::Tensor second = dequantize_blockwise(second_codes, levels);
  second.mul_(options_.beta2).addcmul_(grad, grad, 1 - options_.beta2);
  store(second_codes, second, levels);
  const double correction = std::sqrt(1 - std::pow(options_.beta2, steps));
  return {first, second.sqrt_().div_(correction).add_(options_.epsilon)};
}

void AdamW8bit::update(Moments& moments, double learning_rate) {
  const at::Tensor& parameter = parameters_[moments.index].second;
  const double steps = moments.steps.add_(1).item<double>();
  const double first_correction = 1 - std::pow(options_.beta1, steps);
  const double decay = decay_of(moments);
  const at::Tensor values = in_memory_order(parameter, parameter).view({-1});
  const at::Tensor grads = in_memory_order(parameter.grad(), parameter).reshape({-1});
  const std::int64_t piece = parameter.is_cpu() ? kPieceValues : kChunkValues;
  for (std::int64_t begin = 0; begin < values.numel(); begin += piece) {
    const std::int64_t count = std::min(piece, values.numel() - begin);
    const Move move =
        move_moments(slice(moments.first, begin, count), slice(moments.second, begin, count),
                     grads.narrow(0, begin, count).to(at::kFloat), steps);
    at::Tensor own = values.narrow(0, begin, count);
    at::Tensor wide = own.to(at::kFloat);  // the parameter's own memory when it is float32
    if (decay > 0) wide.mul_(1 - learning_rate * decay);
    wide.addcdiv_(move.first, move.size, -learning_rate / first_correction);
    if (!wide.is_same(own)) own.copy_(wide);
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
