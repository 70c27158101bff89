// AdamW over named parameters, fused by LibTorch, with state that can be saved and restored
// exactly.
//
// Reference: torch.optim.AdamW; which parameters decay: transformers' Trainer (biases and norms
// don't).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "vlm/io/safetensors.h"

namespace vlm::train {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};

class AdamW {
 public:
  AdamW(NamedTensors parameters, const AdamWOptions& options);

  // Updates every parameter that has a gradient; the gradients stay.
  void step(double learning_rate);
  void zero_grad();

  const NamedTensors& parameters() const { return parameters_; }

  // "exp_avg.<name>", "exp_avg_sq.<name>" and "step".
  NamedTensors state() const;
  // Throws Error naming the file and the first tensor that is missing or has another shape.
  void load_state(const SafetensorsFile& file);

 private:
  // Parameters that share a decay, as the fused kernel takes them.
  struct Group {
    double weight_decay = 0;
    std::vector<at::Tensor> parameters, exp_avg, exp_avg_sq, steps;
  };

  void step_group(Group& group, double learning_rate);

  NamedTensors parameters_;
  AdamWOptions options_;
  NamedTensors exp_avg_, exp_avg_sq_, steps_;  // beside parameters_, by index
};

// Norm over all gradients, which are scaled down in place when it exceeds `max_norm` (0: never).
// Returns the norm before.
double clip_grad_norm(const NamedTensors& parameters, double max_norm);

// False for biases and norms.
bool has_weight_decay(const std::string& parameter_name);

}  // namespace vlm::train
