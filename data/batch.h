// Samples → one padded batch of ids, labels and tiles for the trainer.
//
//   Sample ─► encode_example (pictures opened, augmented, processed) ─► Example ─► collate ─► Batch
//   [B, T]
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/augment.h"
#include "data/sample.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm::data {

// Positions that carry no loss.
inline constexpr std::int64_t kIgnoredLabel = -100;

// All pictures of a sample: as tiles, or as the features that the vision encoder made of them.
struct SamplePictures {
  std::string key;                 // of the files' content; empty: not known, or augmented
  std::vector<std::string> texts;  // what stands for each picture in the prompt
  at::Tensor pixel_values;         // [N, 3, S, S]; undefined when there are none, or features
  at::Tensor features;             // [N, L, C] on the CPU; undefined: not known
  bool empty() const { return !pixel_values.defined() && !features.defined(); }
  std::int64_t tiles() const;
};

struct Example {
  std::vector<std::int64_t> ids;     // [T]
  std::vector<std::int64_t> labels;  // [T], not shifted; kIgnoredLabel where nothing is learned
  SamplePictures pictures;
};

struct Batch {
  ModelInputs inputs;  // ids; right-padded: no mask is needed, as nothing real looks at padding
  at::Tensor labels;   // [B, T] int64, shifted: labels[b][t] is what position t must predict
  std::int64_t label_count = 0;
  std::vector<Segment> segments;         // of a packed row (B = 1); empty: rows of one sample each
  std::vector<SamplePictures> pictures;  // each once
  std::vector<std::int64_t> picture_order;  // which of them stand in the rows, one after the other
  std::int64_t token_count = 0;             // without padding

  // The share of the batch that is padding, 0 to 1.
  double padding() const;
};

// Features that were kept from before.
struct KnownPictures {
  std::vector<std::string> texts;
  at::Tensor features;  // [N, L, C]
};

// Where features are kept; asked by several threads.
class PictureLookup {
 public:
  virtual ~PictureLookup() = default;
  virtual std::optional<KnownPictures> find(const std::string& key) const = 0;
};

struct EncodeOptions {
  std::int64_t max_length = 0;  // longest sample in tokens; 0: no bound
  AugmentConfig augmentation;
  std::uint64_t seed = 0;  // of this sample's augmentation
  // Gives samples their pictures' key, and features in place of pixels where it has them. Null, or
  // with augmentation: neither.
  const PictureLookup* lookup = nullptr;
};

// Throws Error naming the sample: a picture that can't be read, too long, nothing to learn.
Example encode_example(const Sample& sample, const Processor& processor,
                       const EncodeOptions& options);

// Pads with `pad_id` to the longest row. Examples with the same picture key share one copy.
Batch collate(const std::vector<Example>& examples, std::int64_t pad_id);

// Adds an example's pictures behind those that stand in the batch already.
void add_pictures(const SamplePictures& pictures, Batch& batch);

}  // namespace vlm::data
