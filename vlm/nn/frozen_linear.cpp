#include "vlm/nn/frozen_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/accumulate.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>

#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"
#include "vlm/nn/quantize.h"

namespace vlm {

class Nf4Block {
 public:
  Nf4Block(Nf4Weight all, std::shared_ptr<WideBlock> last)
      : all_(std::move(all)), last_(std::move(last)) {}
  ~Nf4Block() {
    if (last_->owner == this) last_->release();
  }
  Nf4Block(const Nf4Block&) = delete;
  Nf4Block& operator=(const Nf4Block&) = delete;

  at::Tensor widen(at::ScalarType dtype) const {
    if (last_->owner == this && last_->values.scalar_type() == dtype) return last_->values;
    last_->release();  // first, so that two are never held
    // A tensor made in inference mode couldn't be used in training.
    const c10::InferenceMode normal(false);
    last_->values = dequantize_nf4(all_, dtype);
    last_->owner = this;
    return last_->values;
  }

 private:
  Nf4Weight all_;  // of all parts, each filled up to whole blocks of scales
  std::shared_ptr<WideBlock> last_;
};

namespace {

constexpr std::int64_t kJointStep = kNf4Block * kBlockwiseBlock;  // values

// Copies `part` to the front of a stretch of `whole`, and returns the stretch.
at::Tensor move_into(const at::Tensor& whole, std::int64_t begin, const at::Tensor& part) {
  at::Tensor stretch = whole.narrow(0, begin, part.numel());
  stretch.copy_(part);
  return stretch;
}

}  // namespace

std::vector<Nf4Weight> join_nf4(const std::vector<const Nf4Weight*>& weights,
                                const std::shared_ptr<WideBlock>& last) {
  const c10::NoGradGuard no_grad;
  std::int64_t steps = 0;
  for (const Nf4Weight* weight : weights) steps += weight->absmax.scales.numel();
  const at::TensorOptions bytes = weights.at(0)->codes.options(),
                          floats = weights[0]->absmax_mean.options();
  Nf4Weight all{.codes = at::zeros({steps * kJointStep / 2}, bytes),
                .absmax = {.codes = at::zeros({steps * kBlockwiseBlock}, bytes),
                           .scales = at::empty({steps}, floats)},
                .absmax_mean = at::empty({steps, 1}, floats),
                .shape = {steps * kJointStep}};
  std::vector<Nf4Weight> parts;
  std::int64_t step = 0;
  for (const Nf4Weight* weight : weights) {
    const std::int64_t count = weight->absmax.scales.numel();
    Nf4Weight part = *weight;
    part.place = step * kJointStep;
    part.codes = move_into(all.codes, part.place / 2, weight->codes);
    part.absmax.codes = move_into(all.absmax.codes, step * kBlockwiseBlock, weight->absmax.codes);
    part.absmax.scales = move_into(all.absmax.scales, step, weight->absmax.scales);
    all.absmax_mean.narrow(0, step, count).copy_(weight->absmax_mean);
    parts.push_back(std::move(part));
    step += count;
  }
  const auto block = std::make_shared<Nf4Block>(std::move(all), last);
  for (Nf4Weight& part : parts) part.block = block;
  return parts;
}

at::Tensor widen_nf4(const Nf4Weight& stored, at::ScalarType dtype) {
  if (!stored.block) return dequantize_nf4(stored, dtype);
  const at::Tensor all = stored.block->widen(dtype);
  return all.narrow(0, stored.place, c10::multiply_integers(stored.shape)).view(stored.shape);
}

namespace {

// A linear map whose matrix nobody keeps; it travels to backward as an opaque value.
struct LinearMap : torch::CustomClassHolder {
  std::function<at::Tensor(const at::Tensor&)> apply;      // [..., in] → [..., out]
  std::function<at::Tensor(const at::Tensor&)> transpose;  // [..., out] → [..., in]
};

class FrozenFunction : public torch::autograd::Function<FrozenFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<LinearMap>& map) {
    context->saved_data["map"] = c10::IValue::make_capsule(map);
    return map->apply(x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto map =
        c10::static_intrusive_pointer_cast<LinearMap>(context->saved_data["map"].toCapsule());
    return {map->transpose(grads[0]), at::Tensor()};
  }
};

bool needs_graph(const at::Tensor& x) {
  return c10::GradMode::is_enabled() && x.requires_grad();
}

}  // namespace

at::Tensor nf4_linear(const at::Tensor& x, const std::shared_ptr<const Nf4Weight>& weight,
                      const at::Tensor& bias, at::ScalarType product_dtype) {
  auto map = c10::make_intrusive<LinearMap>();
  const bool is_rounded =
      product_dtype == at::kBFloat16 && x.scalar_type() == at::kFloat && x.is_cpu();
  // On a GPU the product adds a frozen bias itself.
  const bool adds_bias =
      !x.is_cpu() && bias.defined() && !(c10::GradMode::is_enabled() && bias.requires_grad());
  const at::Tensor inner = adds_bias ? bias.to(product_dtype) : at::Tensor();
  map->apply = [=](const at::Tensor& in) {
    const at::Tensor wide = widen_nf4(*weight, product_dtype);
    if (is_rounded) return bfloat16_linear(in, wide, {}, product_dtype);
    return at::linear(in.to(product_dtype), wide, inner).to(in.scalar_type());
  };
  map->transpose = [=](const at::Tensor& grad) {
    const at::Tensor wide = widen_nf4(*weight, product_dtype);
    if (is_rounded) return times_bfloat16(grad, wide, product_dtype);
    return grad.to(product_dtype).matmul(wide).to(grad.scalar_type());
  };
  const at::Tensor y = FrozenFunction::apply(x, map);
  return bias.defined() && !adds_bias ? y + bias.to(y.scalar_type()) : y;
}

namespace {

// The products of a bfloat16 weight, and of its transpose, with float32 values: on a CPU by kernels
// of our own, elsewhere with the weight widened.
at::Tensor times_weight(const at::Tensor& in, const at::Tensor& weight, at::ScalarType dtype) {
  if (in.is_cpu()) return bfloat16_linear(in, weight, {}, dtype);
  return at::linear(in, weight.to(in.scalar_type()));
}

at::Tensor times_transpose(const at::Tensor& grad, const at::Tensor& weight, at::ScalarType dtype) {
  if (grad.is_cpu()) return times_bfloat16(grad, weight, dtype);
  return grad.matmul(weight.to(grad.scalar_type()));
}

}  // namespace

at::Tensor frozen_bfloat16_linear(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias, at::ScalarType product_dtype) {
  const bool is_bias_trained =
      c10::GradMode::is_enabled() && bias.defined() && bias.requires_grad();
  if (!needs_graph(x) && !is_bias_trained && x.is_cpu()) {
    return bfloat16_linear(x, weight, bias, product_dtype);
  }
  auto map = c10::make_intrusive<LinearMap>();
  map->apply = [weight, product_dtype](const at::Tensor& in) {
    return times_weight(in, weight, product_dtype);
  };
  map->transpose = [weight, product_dtype](const at::Tensor& grad) {
    return times_transpose(grad, weight, product_dtype);
  };
  const at::Tensor y = FrozenFunction::apply(x, map);
  return bias.defined() ? y + bias.to(y.scalar_type()) : y;
}

}  // namespace vlm
