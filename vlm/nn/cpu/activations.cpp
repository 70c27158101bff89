#include "vlm/nn/cpu/activations.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kActivatedValues = 32 * 1024;  // that a thread takes at a time

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

template <Gelu Kind>
VLM_INLINE void gelu_each(float* x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    store_partial(fast_gelu<Kind>(load_partial(x + i, count - i)), x + i, count - i);
  }
}

VLM_CLONES void gelu_all(float* x, std::int64_t count, Gelu kind) {
  if (kind == Gelu::kErf) {
    gelu_each<Gelu::kErf>(x, count);
  } else if (kind == Gelu::kTanh) {
    gelu_each<Gelu::kTanh>(x, count);
  } else {
    gelu_each<Gelu::kQuick>(x, count);
  }
}

at::Tensor exact_gelu(at::Tensor& x, Gelu kind) {
  if (kind == Gelu::kQuick) return x * at::sigmoid(x * 1.702);
  const char* approximation = kind == Gelu::kTanh ? "tanh" : "none";
  return c10::GradMode::is_enabled() ? at::gelu(x, approximation) : at::gelu_(x, approximation);
}

VLM_CLONES void gate_all(float* gate, const float* up, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Floats y = fast_silu(load_partial(gate + i, count - i)) * load_partial(up + i, count - i);
    store_partial(y, gate + i, count - i);
  }
}

// Between products that round, the quick exponential is as good as the exact one.
bool is_quick(const at::Tensor& x, at::ScalarType product_dtype) {
  return product_dtype != at::kFloat && x.is_cpu() && x.scalar_type() == at::kFloat &&
         x.is_contiguous();
}

// Calls work(first value, count) for pieces of `total` values.
template <typename Work>
void over_values(std::int64_t total, const Work& work) {
  run_pieces(divide_up(total, kActivatedValues), [&](std::int64_t i) {
    work(i * kActivatedValues, std::min(kActivatedValues, total - i * kActivatedValues));
  });
}

}  // namespace

at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up, at::ScalarType product_dtype) {
  if (!c10::GradMode::is_enabled()) {
    if (!is_quick(gate, product_dtype) || !is_quick(up, product_dtype)) {
      return at::silu_(gate).mul_(up);
    }
    auto* gates = gate.mutable_data_ptr<float>();
    const auto* ups = up.const_data_ptr<float>();
    over_values(gate.numel(), [&](std::int64_t first, std::int64_t count) {
      gate_all(gates + first, ups + first, count);
    });
    return gate;
  }
  const bool is_narrowed = product_dtype == at::kBFloat16 && gate.scalar_type() == at::kFloat;
  return GatedSilu::apply(gate, up, is_narrowed ? at::kBFloat16 : gate.scalar_type());
}

at::Tensor gelu(at::Tensor x, Gelu kind, at::ScalarType product_dtype) {
  if (c10::GradMode::is_enabled() || !is_quick(x, product_dtype)) return exact_gelu(x, kind);
  auto* values = x.mutable_data_ptr<float>();
  over_values(x.numel(), [&](std::int64_t first, std::int64_t count) {
    gelu_all(values + first, count, kind);
  });
  return x;
}

}  // namespace vlm
