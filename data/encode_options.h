// Options for making a training example of a sample: augmentation, learned turns, length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/augment.h"
#include "data/loss_turns.h"
#include "data/media/video_clip.h"

namespace vlm::data {

// What happens to a sample of more tokens than max_length, or than the model has positions for.
enum class LengthPolicy {
  kError,
  kTruncate,  // cuts the text after the bound; an error if a picture would be cut
  kSkip,      // as kError, but try_example skips the sample
};

// In the enum's order: the values of `length_policy`.
const std::vector<std::string>& length_policy_names();
// Throws Error for an unknown name.
LengthPolicy parse_length_policy(const std::string& name);

// The most tokens that a sample may have, and the config key that sets it.
struct LengthBound {
  std::int64_t tokens = 0;  // 0: no bound
  const char* key = "";
};

class PictureLookup;  // data/media/picture_lookup.h

struct EncodeOptions {
  std::int64_t max_length = 0;  // longest sample in tokens; 0: the model's bound alone
  LengthPolicy length_policy = LengthPolicy::kError;
  TrainOn train_on = TrainOn::kAssistant;
  AugmentConfig augmentation;  // a clip's frames are all changed alike
  std::uint64_t seed = 0;      // of this sample's augmentation
  VideoSampling video;
  // Finds features that are already known, by the key of a sample's pictures; they then take the
  // place of pixels. Not used when null, or with augmentation.
  const PictureLookup* lookup = nullptr;

  // The smaller of max_length and `max_positions` of the model (0: not known).
  LengthBound bound(std::int64_t max_positions) const;
};

}  // namespace vlm::data
