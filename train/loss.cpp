#include "train/loss.h"

#include <ATen/Functions.h>

namespace vlm::train {

at::Tensor loss_sum(VisionLanguageModel& model, const data::Batch& batch) {
  const ModelInputs& inputs = batch.inputs;
  at::Tensor features;  // [N, L, C]
  if (inputs.pixel_values.defined()) {
    features = model.encode_images(inputs.pixel_values, inputs.tile_mask);
  }
  const at::Tensor hidden =
      model.decode(model.embed(inputs.input_ids, features), inputs.attention_mask, nullptr);
  const at::Tensor labels = batch.labels.flatten().to(hidden.device());
  const at::Tensor places = labels.ne(data::kIgnoredLabel).nonzero().flatten();
  const at::Tensor logits = model.logits(hidden.flatten(0, 1).index_select(0, places));
  return at::cross_entropy_loss(logits.to(at::kFloat), labels.index_select(0, places), {},
                                at::Reduction::Sum);
}

}  // namespace vlm::train
