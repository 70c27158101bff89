#include "vlm/models/parts/feature_rows.h"

#include <ATen/ops/constant_pad_nd.h>
#include <torch/nn/module.h>

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/nn/upload.h"

namespace vlm {

at::Tensor put_features(const at::Tensor& embedded, const at::Tensor& input_ids,
                        const at::Tensor& features, const std::vector<std::int64_t>& media_ids) {
  // Found where the ids lie: the trainer's are on the CPU, and no GPU is waited for.
  at::Tensor is_medium;
  for (const std::int64_t id : media_ids) {
    const at::Tensor is_this = input_ids.eq(id);
    is_medium = is_medium.defined() ? is_medium.logical_or(is_this) : is_this;
  }
  const at::Tensor places =
      is_medium.defined() ? is_medium.flatten().nonzero().flatten() : at::Tensor();
  const std::int64_t wanted = places.defined() ? places.numel() : 0;
  const std::int64_t given = features.defined() ? features.size(0) : 0;
  if (wanted != given) {
    throw Error({.what = "image tokens in the prompt don't fit the pictures",
                 .got = concat(wanted, " image tokens"),
                 .wanted = concat(given)});
  }
  if (given == 0) return embedded;
  const std::int64_t width = features.size(1), wider = width - embedded.size(2);
  const at::Tensor rows = wider > 0 ? at::constant_pad_nd(embedded, {0, wider}) : embedded;
  return rows.flatten(0, 1)
      .index_copy(0, upload(places, rows.device()), features.to(rows.scalar_type()))
      .view({embedded.size(0), embedded.size(1), width});
}

NamedTensors tensors_under(const torch::nn::Module& model,
                           const std::vector<std::string>& prefixes) {
  NamedTensors found;
  const auto add = [&](const auto& item) {
    const bool is_under = std::ranges::any_of(
        prefixes, [&](const std::string& prefix) { return item.key().starts_with(prefix); });
    if (is_under) found.emplace_back(item.key(), item.value());
  };
  for (const auto& item : model.named_parameters()) add(item);
  for (const auto& item : model.named_buffers()) add(item);
  return found;
}

}  // namespace vlm
