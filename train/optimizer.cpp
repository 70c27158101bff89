#include "train/optimizer.h"

#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::train {

AdamW::AdamW(NamedTensors parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const auto& [name, parameter] : parameters_) {
    exp_avg_.emplace_back("exp_avg." + name, at::zeros_like(parameter.detach()));
    exp_avg_sq_.emplace_back("exp_avg_sq." + name, at::zeros_like(parameter.detach()));
    steps_.emplace_back("step." + name, at::zeros({}, parameter.options().dtype(at::kFloat)));
  }
}

void AdamW::step(double learning_rate) {
  const c10::NoGradGuard no_grad;
  Group groups[2] = {{.weight_decay = 0}, {.weight_decay = options_.weight_decay}};
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, parameter] = parameters_[i];
    if (!parameter.grad().defined()) continue;
    Group& group = groups[has_weight_decay(name) ? 1 : 0];
    group.parameters.push_back(parameter);
    group.exp_avg.push_back(exp_avg_[i].second);
    group.exp_avg_sq.push_back(exp_avg_sq_[i].second);
    group.steps.push_back(steps_[i].second);
  }
  for (Group& group : groups) step_group(group, learning_rate);
}

void AdamW::step_group(Group& group, double learning_rate) {
  if (group.parameters.empty()) return;
  std::vector<at::Tensor> grads;
  for (std::size_t i = 0; i < group.parameters.size(); ++i) {
    grads.push_back(group.parameters[i].grad());
    group.steps[i].add_(1);
  }
  at::_fused_adamw_(group.parameters, grads, group.exp_avg, group.exp_avg_sq, {}, group.steps,
                    learning_rate, options_.beta1, options_.beta2, group.weight_decay,
                    options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
}

void AdamW::zero_grad() {
  for (const auto& [name, parameter] : parameters_) parameter.mutable_grad() = at::Tensor();
}

NamedTensors AdamW::state() const {
  NamedTensors state = exp_avg_;
  state.insert(state.end(), exp_avg_sq_.begin(), exp_avg_sq_.end());
  state.insert(state.end(), steps_.begin(), steps_.end());
  return state;
}

void AdamW::load_state(const SafetensorsFile& file) {
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

double clip_grad_norm(const NamedTensors& parameters, double max_norm) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> grads;
  for (const auto& [name, parameter] : parameters) {
    if (parameter.grad().defined()) grads.push_back(parameter.grad());
  }
  if (grads.empty()) return 0;
  const double norm = at::stack(at::_foreach_norm(grads)).norm().item<double>();
  // torch.nn.utils.clip_grad_norm_ adds the same small number.
  const double factor = max_norm / (norm + 1e-6);
  if (max_norm > 0 && factor < 1) at::_foreach_mul_(grads, factor);
  return norm;
}

bool has_weight_decay(const std::string& parameter_name) {
  return !parameter_name.ends_with("bias") && parameter_name.find("norm") == std::string::npos;
}

}  // namespace vlm::train
