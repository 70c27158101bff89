// Optimizers over named parameters, with state that can be saved and restored exactly.
//
//   parameters with gradients ─► step(learning rate) ─► parameters changed in place
//
// AdamW is fused by LibTorch. AdamW8bit stores each moment as one byte a value and a scale for
// every 256 values: 2.03 bytes a parameter, where AdamW has 8. Sgd is torch's, with momentum.
// References: torch.optim.AdamW and SGD (2.11), bitsandbytes.optim.AdamW8bit (0.50); which
// parameters decay: transformers' Trainer (biases and norms don't).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "vlm/io/safetensors.h"
#include "vlm/nn/quantize.h"

namespace vlm::train {

struct OptimizerOptions {
  std::string optim = "adamw";  // adamw, adamw_8bit, sgd
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double momentum = 0;  // of sgd
};

class Optimizer {
 public:
  // `rate_factors` (empty: all 1) multiply the learning rate, one a parameter.
  Optimizer(NamedTensors parameters, std::vector<double> rate_factors);
  virtual ~Optimizer() = default;

  // Updates every parameter that has a gradient; the gradients stay.
  virtual void step(double learning_rate) = 0;
  void zero_grad();

  const NamedTensors& parameters() const { return parameters_; }

  // The tensors from which load_state restores the optimizer exactly.
  virtual NamedTensors state() const = 0;
  // Throws Error naming the file and the first tensor that is missing or has another shape.
  void load_state(const SafetensorsFile& file);

 protected:
  // Calls visit(i) for every parameter that has a gradient.
  template <typename Visit>
  void for_each_ready(Visit visit) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (parameters_[i].second.grad().defined()) visit(i);
    }
  }

  NamedTensors parameters_;
  std::vector<double> rate_factors_;
};

class AdamW : public Optimizer {
 public:
  AdamW(NamedTensors parameters, const OptimizerOptions& options,
        std::vector<double> rate_factors = {});

  void step(double learning_rate) override;
  // "exp_avg.<name>", "exp_avg_sq.<name>" and "step.<name>".
  NamedTensors state() const override;

 private:
  OptimizerOptions options_;
  NamedTensors exp_avg_, exp_avg_sq_, steps_;  // beside parameters_, by index
};

class AdamW8bit : public Optimizer {
 public:
  AdamW8bit(const NamedTensors& parameters, const OptimizerOptions& options,
            const std::vector<double>& rate_factors = {});

  void step(double learning_rate) override;
  // Parameters of fewer than 4096 values keep their moments in float32, under the names of AdamW;
  // for others "exp_avg.codes.<name>", "exp_avg.scales.<name>", the same of exp_avg_sq,
  // "step.<name>".
  NamedTensors state() const override;

 private:
  struct Moments {
    std::size_t index;  // of the parameter
    BlockwiseCodes first, second;
    at::Tensor steps;
  };
  // Of several parameters, the moments behind each other; theirs are parts of it.
  struct Chunk {
    std::vector<std::size_t> members;  // of large_
    std::int64_t size = 0;
    BlockwiseCodes first, second;
  };

  void join_chunks();
  bool is_joint(const Chunk& chunk) const;
  void update_joint(Chunk& chunk, double learning_rate);
  void update(Moments& moments, double learning_rate);
  struct Move {
    at::Tensor first, size;  // the new first moment; the root of the second, corrected
  };
  Move move_moments(const BlockwiseCodes& first_codes, const BlockwiseCodes& second_codes,
                    const at::Tensor& grad, double steps) const;
  double decay_of(const Moments& moments) const;
  const at::Tensor& zeros_of(const at::Tensor& parameter);

  OptimizerOptions options_;
  std::vector<Moments> large_;
  std::vector<Chunk> chunks_;
  at::Tensor zeros_;
  std::unique_ptr<AdamW> small_;
};

class Sgd : public Optimizer {
 public:
  Sgd(NamedTensors parameters, const OptimizerOptions& options,
      std::vector<double> rate_factors = {});

  void step(double learning_rate) override;
  // "momentum_buffer.<name>"; nothing without momentum.
  NamedTensors state() const override;

 private:
  OptimizerOptions options_;
  NamedTensors momentum_;
};

std::unique_ptr<Optimizer> make_optimizer(const NamedTensors& parameters,
                                          const OptimizerOptions& options,
                                          const std::vector<double>& rate_factors);

// Norm over all gradients, [] on their device; undefined where there are none.
at::Tensor norm_of_gradients(const NamedTensors& parameters);

// Scales all gradients down in place where their norm exceeds `max_norm` (0: never). Where it is
// not finite, they are left alone.
void clip_gradients(const NamedTensors& parameters, double norm, double max_norm);

// Both: returns the norm before.
double clip_grad_norm(const NamedTensors& parameters, double max_norm);

// The name of the first tensor with a value that is not finite; empty when there is none.
std::string find_not_finite(const NamedTensors& tensors);

// False for biases and norms, which are those that say so and other vectors called "weight".
bool has_weight_decay(const std::string& name, const at::Tensor& parameter);

}  // namespace vlm::train
