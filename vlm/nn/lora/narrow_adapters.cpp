#include "vlm/nn/lora/narrow_adapters.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>

#include "vlm/nn/lora/lora.h"

namespace vlm {

NarrowAdapters::NarrowAdapters(const torch::nn::Module& model, at::ScalarType dtype) {
  for (const auto& module : model.modules()) {
    auto linear = std::dynamic_pointer_cast<Linear>(module);
    LoraBranch* const branch = linear ? linear->lora() : nullptr;
    if (!branch || branch->magnitude.defined()) continue;
    const at::Tensor &a = branch->a()->weight, &b = branch->b()->weight;
    if (a.is_cpu() || a.scalar_type() == dtype) continue;
    branch->narrow = {.a = at::empty_like(a, a.options().dtype(dtype)),
                      .b = at::empty_like(b, b.options().dtype(dtype))};
    layers_.push_back(std::move(linear));
  }
  refresh();
}

NarrowAdapters::~NarrowAdapters() {
  for (const auto& layer : layers_) {
    if (layer->lora()) layer->lora()->narrow = {};
  }
}

void NarrowAdapters::refresh() {
  if (layers_.empty()) return;
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> copies, originals;
  for (const auto& layer : layers_) {
    LoraBranch& branch = *layer->lora();
    copies.insert(copies.end(), {branch.narrow.a, branch.narrow.b});
    originals.insert(originals.end(), {branch.a()->weight, branch.b()->weight});
    branch.narrow.version = branch.version();
  }
  at::_foreach_copy_(copies, originals);
}

std::int64_t NarrowAdapters::nbytes() const {
  std::size_t bytes = 0;
  for (const auto& layer : layers_) {
    bytes += layer->lora()->narrow.a.nbytes() + layer->lora()->narrow.b.nbytes();
  }
  return static_cast<std::int64_t>(bytes);
}

}  // namespace vlm
