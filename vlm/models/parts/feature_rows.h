// Features of media into the rows of the tokens that stand for them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "vlm/io/safetensors.h"

namespace torch::nn {
class Module;
}

namespace vlm {

// embedded [B, T, C], with the rows of `media_ids` in `input_ids` [B, T] replaced, in order, by
// features [ΣL, W] (undefined: none). Where W is more than C the result is [B, T, W], with zeros
// behind the text's C. Throws Error when the numbers of rows differ.
at::Tensor put_features(const at::Tensor& embedded, const at::Tensor& input_ids,
                        const at::Tensor& features, const std::vector<std::int64_t>& media_ids);

// Parameters and buffers (weights in other forms than numbers) whose names begin with one of the
// prefixes. For VisionLanguageModel::picture_weights.
NamedTensors tensors_under(const torch::nn::Module& model,
                           const std::vector<std::string>& prefixes);

}  // namespace vlm
