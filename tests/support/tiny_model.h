// The committed tiny checkpoint as a model, on the golden inputs of its adapters.
#pragma once

#include <ATen/ATen.h>

#include "tests/support/tensors.h"
#include "vlm/models/registry.h"
#include "vlm/models/smolvlm/smolvlm.h"

namespace vlm {

// Tiles [N, 3, S, S], each of `tokens` tokens.
inline Pixels tiles_of(const at::Tensor& values, std::int64_t tokens) {
  return {.values = values, .tokens = values.size(0) * tokens};
}

inline ModelPtr load_tiny_model() {
  return load_model(fixture(kTinyModel), {});
}

inline at::Tensor logits_of(VisionLanguageModel& model, const Golden& golden) {
  const at::Tensor features =
      dynamic_cast<SmolVlm&>(model)
          .encode_tiles(golden["pixel_values"].flatten(0, 1),
                        golden["pixel_attention_mask"].flatten(0, 1).to(at::kBool))
          .flatten(0, 1);
  return model.logits(model.decode(model.embed(golden["input_ids"], features), {}, nullptr));
}

inline at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& labels) {
  const std::int64_t last = logits.size(1) - 1;
  return at::cross_entropy_loss(logits.narrow(1, 0, last).flatten(0, 1),
                                labels.narrow(1, 1, last).flatten());
}

}  // namespace vlm
