// Samples → one padded batch of ids, labels and pixels for the trainer.
//
//   Sample ─► encode_example (pictures and clips opened, augmented, processed) ─► Example ─►
//   collate ─► Batch [B, T]
//
// A batch may mix samples with pictures, with clips, with both and with text alone. Their features
// go into the rows in the order of the tokens that stand for them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/conversations/sample.h"
#include "data/dataset.h"
#include "data/encode_options.h"
#include "data/media/picture_lookup.h"
#include "data/skipped_samples.h"
#include "vlm/core/error.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"

namespace vlm::data {

// Positions that carry no loss.
inline constexpr std::int64_t kIgnoredLabel = -100;

// All pictures and clips of a sample: as pixels, or as features of the vision encoder.
struct SamplePictures {
  std::string key;                // of the files' content; empty: not known, or augmented
  std::vector<MediumText> texts;  // the text of each in the prompt
  Pixels pixels;                  // empty when there are none, or features
  at::Tensor features;            // [ΣL, W] on the CPU; undefined: not known
  bool empty() const { return pixels.empty() && !features.defined(); }
  std::int64_t tokens() const { return features.defined() ? features.size(0) : pixels.tokens; }
  // Of the encoder's work (Pixels::units), also where it is done.
  std::int64_t units() const;
};

struct Example {
  std::vector<std::int64_t> ids;     // [T]
  std::vector<std::int64_t> labels;  // [T], not shifted; kIgnoredLabel where nothing is learned
  PromptLayout layout;
  SamplePictures pictures;
  std::int64_t cut_tokens = 0;  // that length_policy truncate took away
};

struct Batch {
  ModelInputs
      inputs;  // ids; padded on the right, so real tokens never see padding and no mask is needed
  at::Tensor labels;  // [B, T] int64, shifted: labels[b][t] is what position t must predict
  std::int64_t label_count = 0;
  std::vector<Segment> segments;         // of a packed row (B = 1); empty: rows of one sample each
  std::vector<SamplePictures> pictures;  // each once
  std::vector<std::int64_t>
      picture_order;  // indices into `pictures`, in the order of their places in the rows
  std::int64_t token_count = 0;  // without padding

  // The share of the batch that is padding, 0 to 1.
  double padding() const;
};

// A sample of more tokens than its bound (EncodeOptions::bound).
class LongSampleError : public Error {
 public:
  using Error::Error;
};

// Throws Error naming the sample: a picture or clip that can't be read, too long, nothing to
// learn.
Example encode_example(const Sample& sample, const Processor& processor,
                       const EncodeOptions& options);

// Labels, length policy and checks of an encoded conversation, without its pictures.
// `max_positions` of the model is a bound too; 0: not known.
Example make_example(EncodedConversation encoded, const Sample& sample,
                     const EncodeOptions& options, std::int64_t max_positions = 0);

// The example of sample `index`, or nothing if it is to be skipped. Throws Error if it may not be
// skipped.
std::optional<Example> try_example(const Dataset& dataset, std::int64_t index,
                                   const Processor& processor, const EncodeOptions& options,
                                   SkippedSamples& skipped);

// The example of sample `index`, or of the next one that is not skipped. Depends on the files and
// the index alone, so that a resumed run reads the same. Throws Error when every sample is skipped.
Example read_example(const Dataset& dataset, std::int64_t index, const Processor& processor,
                     const EncodeOptions& options, SkippedSamples& skipped);

// Pads with `pad_id` to the longest row. Examples with the same picture key share one copy.
Batch collate(const std::vector<Example>& examples, std::int64_t pad_id);

// Appends an example's pictures to those of the batch.
void add_pictures(const SamplePictures& pictures, Batch& batch);

}  // namespace vlm::data
