// Samples → one padded batch of ids, labels and tiles for the trainer.
//
//   Sample ─► encode_example (pictures and clips opened, augmented, processed) ─► Example ─►
//   collate ─► Batch [B, T]
//
// A batch may mix samples with pictures, with clips, with both and with text alone: tiles and
// frames are one tensor, in the order of the places that take them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/augment.h"
#include "data/sample.h"
#include "data/video_clip.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm::data {

// Positions that carry no loss.
inline constexpr std::int64_t kIgnoredLabel = -100;

struct Example {
  std::vector<std::int64_t> ids;     // [T]
  std::vector<std::int64_t> labels;  // [T], not shifted; kIgnoredLabel where nothing is learned
  at::Tensor pixel_values;           // [N, 3, S, S] or undefined
};

struct Batch {
  ModelInputs inputs;  // right-padded: no mask is needed, as nothing real looks at padding
  at::Tensor labels;   // [B, T] int64, shifted: labels[b][t] is what position t must predict
  std::int64_t label_count = 0;
};

struct EncodeOptions {
  std::int64_t max_length = 0;  // longest sample in tokens; 0: no bound
  AugmentConfig augmentation;   // a clip's frames are all changed alike
  std::uint64_t seed = 0;       // of this sample's augmentation
  VideoSampling video;
};

// Throws Error naming the sample: a picture or clip that can't be read, too long, nothing to
// learn.
Example encode_example(const Sample& sample, const Processor& processor,
                       const EncodeOptions& options);

// Pads with `pad_id` to the longest row.
Batch collate(const std::vector<Example>& examples, std::int64_t pad_id);

}  // namespace vlm::data
