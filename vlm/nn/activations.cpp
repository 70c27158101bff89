#include "vlm/nn/activations.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceValues = 32 * 1024;  // that a thread takes at a time

class GatedSilu : public torch::autograd::Function<GatedSilu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate,
                            const at::Tensor& up, at::ScalarType kept_dtype) {
    context->save_for_backward({gate.to(kept_dtype), up.to(kept_dtype)});
    return at::silu(gate).mul_(up);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor gate = saved[0].to(grads[0].scalar_type());
    return {at::silu_backward(grads[0] * saved[1], gate), at::silu(gate).mul_(grads[0]),
            at::Tensor()};
  }
};

VLM_CLONES void gelu_all(float* x, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats y = gelu_of(load_lanes<Floats>(x + i));
    std::memcpy(x + i, &y, sizeof y);
  }
  if (i == count) return;
  Floats rest = {};
  const auto bytes = static_cast<std::size_t>(count - i) * sizeof(float);
  std::memcpy(&rest, x + i, bytes);
  rest = gelu_of(rest);
  std::memcpy(x + i, &rest, bytes);
}

}  // namespace

at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up, at::ScalarType product_dtype) {
  if (!c10::GradMode::is_enabled()) return at::silu_(gate).mul_(up);
  const bool is_narrowed = product_dtype == at::kBFloat16 && gate.scalar_type() == at::kFloat;
  return GatedSilu::apply(gate, up, is_narrowed ? at::kBFloat16 : gate.scalar_type());
}

at::Tensor gelu_tanh(at::Tensor x, at::ScalarType product_dtype) {
  if (c10::GradMode::is_enabled()) return at::gelu(x, "tanh");
  const bool is_quick = product_dtype == at::kBFloat16 && x.is_cpu() &&
                        x.scalar_type() == at::kFloat && x.is_contiguous();
  if (!is_quick) return at::gelu_(x, "tanh");
  auto* values = x.mutable_data_ptr<float>();
  const std::int64_t count = x.numel();
  run_pieces((count + kPieceValues - 1) / kPieceValues, [&](std::int64_t i) {
    gelu_all(values + i * kPieceValues, std::min(kPieceValues, count - i * kPieceValues));
  });
  return x;
}

}  // namespace vlm
