#include "train/optimizer/optimizer.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <compare>
#include <limits>
#include <map>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::train {
namespace {

// Parameters that share their decay, their rate and their dtype, as the fused kernels take them.
struct GroupKey {
  double weight_decay = 0, rate_factor = 1;
  at::ScalarType dtype = at::kFloat;
  auto operator<=>(const GroupKey&) const = default;
};

struct Group {
  std::vector<at::Tensor> parameters, grads, exp_avg, exp_avg_sq, steps;
};

// Puts a parameter and its gradient into their group.
Group& join_group(std::map<GroupKey, Group>& groups, const NamedTensors::value_type& item,
                  double weight_decay, double rate_factor) {
  const auto& [name, parameter] = item;
  Group& group = groups[{.weight_decay = has_weight_decay(name, parameter) ? weight_decay : 0,
                         .rate_factor = rate_factor,
                         .dtype = parameter.scalar_type()}];
  group.parameters.push_back(parameter);
  group.grads.push_back(parameter.grad());
  return group;
}

// Numbers of tensors of several dtypes in one.
std::vector<at::Tensor> to_wide(std::vector<at::Tensor> numbers) {
  for (at::Tensor& number : numbers) number = number.to(at::kFloat);
  return numbers;
}

std::vector<at::Tensor> ready_gradients(const NamedTensors& parameters) {
  std::vector<at::Tensor> grads;
  for (const auto& [name, parameter] : parameters) {
    if (parameter.grad().defined()) grads.push_back(parameter.grad());
  }
  return grads;
}

NamedTensors zeros_beside(const NamedTensors& parameters, const std::string& prefix) {
  NamedTensors zeros;
  for (const auto& [name, parameter] : parameters) {
    zeros.emplace_back(prefix + name, at::zeros_like(parameter.detach()));
  }
  return zeros;
}

}  // namespace

Optimizer::Optimizer(NamedTensors parameters, std::vector<double> rate_factors)
    : parameters_(std::move(parameters)), rate_factors_(std::move(rate_factors)) {
  if (rate_factors_.empty()) rate_factors_.assign(parameters_.size(), 1.0);
  TORCH_CHECK(rate_factors_.size() == parameters_.size(), "a factor a parameter");
}

void Optimizer::zero_grad() {
  for (const auto& [name, parameter] : parameters_) parameter.mutable_grad() = at::Tensor();
}

void Optimizer::load_state(const SafetensorsFile& file) {
  const c10::NoGradGuard no_grad;
  for (auto& [name, tensor] : state()) {
    const auto found = file.entries().find(name);
    if (found == file.entries().end() || at::IntArrayRef(found->second.shape) != tensor.sizes()) {
      throw Error({.what = "optimizer state doesn't fit the model",
                   .where = file.path().string(),
                   .got = found == file.entries().end() ? concat("no ", name)
                                                        : shape_text(found->second.shape),
                   .wanted = concat(name, " ", shape_text(tensor.sizes()))});
    }
    tensor.copy_(file.tensor(name));
  }
}

AdamW::AdamW(NamedTensors parameters, const OptimizerOptions& options,
             std::vector<double> rate_factors)
    : Optimizer(std::move(parameters), std::move(rate_factors)), options_(options) {
  exp_avg_ = zeros_beside(parameters_, "exp_avg.");
  exp_avg_sq_ = zeros_beside(parameters_, "exp_avg_sq.");
  for (const auto& [name, parameter] : parameters_) {
    steps_.emplace_back("step." + name, at::zeros({}, parameter.options().dtype(at::kFloat)));
  }
}

void AdamW::step(double learning_rate) {
  const c10::NoGradGuard no_grad;
  std::map<GroupKey, Group> groups;
  for_each_ready([&](std::size_t i) {
    Group& group = join_group(groups, parameters_[i], options_.weight_decay, rate_factors_[i]);
    group.exp_avg.push_back(exp_avg_[i].second);
    group.exp_avg_sq.push_back(exp_avg_sq_[i].second);
    group.steps.push_back(steps_[i].second);
  });
  for (auto& [key, group] : groups) {
    at::_foreach_add_(group.steps, 1);
    at::_fused_adamw_(group.parameters, group.grads, group.exp_avg, group.exp_avg_sq, {},
                      group.steps, learning_rate * key.rate_factor, options_.beta1, options_.beta2,
                      key.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

NamedTensors AdamW::state() const {
  NamedTensors state = exp_avg_;
  state.insert(state.end(), exp_avg_sq_.begin(), exp_avg_sq_.end());
  state.insert(state.end(), steps_.begin(), steps_.end());
  return state;
}

Sgd::Sgd(NamedTensors parameters, const OptimizerOptions& options, std::vector<double> rate_factors)
    : Optimizer(std::move(parameters), std::move(rate_factors)), options_(options) {
  if (options_.momentum > 0) momentum_ = zeros_beside(parameters_, "momentum_buffer.");
}

void Sgd::step(double learning_rate) {
  const c10::NoGradGuard no_grad;
  std::map<GroupKey, Group> groups;
  for_each_ready([&](std::size_t i) {
    Group& group = join_group(groups, parameters_[i], options_.weight_decay, rate_factors_[i]);
    if (!momentum_.empty()) group.exp_avg.push_back(momentum_[i].second);
  });
  // Not LibTorch's fused kernel: on CPUs it is wrong in bfloat16 (2.11). Zeros in the buffers make
  // the first step what torch's is, so no step is told apart.
  for (auto& [key, group] : groups) {
    std::vector<at::Tensor> change = group.grads;
    if (key.weight_decay > 0) {
      change = at::_foreach_add(change, group.parameters, key.weight_decay);
    }
    if (!momentum_.empty()) {
      at::_foreach_mul_(group.exp_avg, options_.momentum);
      at::_foreach_add_(group.exp_avg, change);
      change = group.exp_avg;
    }
    at::_foreach_add_(group.parameters, change, -learning_rate * key.rate_factor);
  }
}

NamedTensors Sgd::state() const {
  return momentum_;
}

std::unique_ptr<Optimizer> make_optimizer(const NamedTensors& parameters,
                                          const OptimizerOptions& options,
                                          const std::vector<double>& rate_factors) {
  if (options.optim == "sgd") return std::make_unique<Sgd>(parameters, options, rate_factors);
  if (options.optim == "adamw_8bit") {
    return std::make_unique<AdamW8bit>(parameters, options, rate_factors);
  }
  TORCH_CHECK(options.optim == "adamw", "optim ", options.optim);
  return std::make_unique<AdamW>(parameters, options, rate_factors);
}

at::Tensor norm_of_gradients(const NamedTensors& parameters) {
  const c10::NoGradGuard no_grad;
  const std::vector<at::Tensor> grads = ready_gradients(parameters);
  return grads.empty() ? at::Tensor() : at::stack(to_wide(at::_foreach_norm(grads))).norm();
}

void clip_gradients(const NamedTensors& parameters, double norm, double max_norm) {
  const c10::NoGradGuard no_grad;
  // torch.nn.utils.clip_grad_norm_ adds the same small number.
  const double factor = max_norm / (norm + 1e-6);
  if (max_norm <= 0 || !std::isfinite(norm) || factor >= 1) return;
  const std::vector<at::Tensor> grads = ready_gradients(parameters);
  if (!grads.empty()) at::_foreach_mul_(grads, factor);
}

double clip_grad_norm(const NamedTensors& parameters, double max_norm) {
  const at::Tensor norm = norm_of_gradients(parameters);
  if (!norm.defined()) return 0;
  const double value = norm.item<double>();
  clip_gradients(parameters, value, max_norm);
  return value;
}

std::string find_not_finite(const NamedTensors& tensors) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> values;
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (!at::isFloatingType(tensor.scalar_type()) || tensor.numel() == 0) continue;
    values.push_back(tensor);
    names.push_back(name);
  }
  if (values.empty()) return "";
  // The largest size of each: infinite or NaN where one of its values is.
  const at::Tensor sizes =
      at::stack(to_wide(at::_foreach_norm(values, std::numeric_limits<double>::infinity()))).cpu();
  for (std::int64_t i = 0; i < sizes.numel(); ++i) {
    if (!std::isfinite(sizes[i].item<double>())) return names[static_cast<std::size_t>(i)];
  }
  return "";
}

bool has_weight_decay(const std::string& name, const at::Tensor& parameter) {
  const bool is_norm =
      name.find("norm") != std::string::npos || (parameter.dim() == 1 && name.ends_with(".weight"));
  return !name.ends_with("bias") && !is_norm;
}

}  // namespace vlm::train
