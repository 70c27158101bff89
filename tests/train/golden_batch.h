// Batches of the golden training runs.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "data/batch.h"
#include "tests/support/tensors.h"

namespace vlm::train {

// A batch of the golden file: labels there stand on their own token, ours on the one before.
inline data::Batch golden_batch(const Golden& golden, int number) {
  const std::string prefix = "batch" + std::to_string(number) + ".";
  data::Batch batch;
  batch.inputs.input_ids = golden[prefix + "input_ids"];
  constexpr std::int64_t kTokens = 4;  // of a tile of the tiny model
  const at::Tensor tiles = golden[prefix + "pixel_values"].flatten(0, 1);
  data::add_pictures({.pixels = {.values = tiles, .tokens = tiles.size(0) * kTokens}}, batch);
  const at::Tensor labels = golden[prefix + "labels"];
  batch.labels = at::full_like(labels, data::kIgnoredLabel);
  const std::int64_t last = labels.size(1) - 1;
  batch.labels.narrow(1, 0, last).copy_(labels.narrow(1, 1, last));
  batch.label_count = batch.labels.ne(data::kIgnoredLabel).sum().item<std::int64_t>();
  return batch;
}

}  // namespace vlm::train
