// The language-model loss. The output head runs only at positions with a label, in chunks.
//
//   hidden [M, C] at labelled positions ─► chunks of logits [m, V] ─► sum of cross entropies, and
//   in the same pass the gradients of hidden and of the head's trained parameters
//
// Logits and their gradient share one buffer per chunk, because a vocabulary of 49,280 takes 197 kB
// a label in float32, more than all activations of a small model. Equal to the plain loss in
// value and gradient up to the order of summation. It has no second derivative. Reference:
// transformers' ForCausalLMLoss with num_items_in_batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "data/batch.h"
#include "vlm/models/interface/model.h"

namespace vlm::train {

class PictureStore;

// Labels of a chunk: 50 MB of float32 logits for a vocabulary of 49,280.
inline constexpr std::int64_t kHeadChunk = 256;

// Bytes that the loss takes for each label of a chunk, where the model's logits have this dtype:
// narrow ones are widened beside themselves.
std::int64_t head_bytes_per_label(std::int64_t vocab_size, at::ScalarType logits);

// Sum of the cross entropies at labelled positions, float32 scalar. Divide by the number of labels
// of the whole optimizer step, as transformers does, so that gradient accumulation gives the same
// result. Pictures are encoded by the model, or come from `pictures` where it isn't null.
at::Tensor loss_sum(VisionLanguageModel& model, const data::Batch& batch,
                    PictureStore* pictures = nullptr);

// The same with given features [ΣL, W] of the pictures; undefined for a batch of text.
at::Tensor loss_sum(VisionLanguageModel& model, const data::Batch& batch,
                    const at::Tensor& features);

// The part of the output head: hidden [M, C] with gradients, labels [M] int64 on the same device.
at::Tensor head_loss_sum(VisionLanguageModel& model, const at::Tensor& hidden,
                         const at::Tensor& labels, std::int64_t chunk = kHeadChunk);

}  // namespace vlm::train
