// How a sample becomes an example: what is changed, what is learned, and how long it may be.
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
  kTruncate,  // text behind the bound goes away; an error where a picture would
  kSkip,      // as kError, for try_example to pass over
};

// In the enum's order: the values of `length_policy`.
const std::vector<std::string>& length_policy_names();
// Throws Error for an unknown name.
LengthPolicy parse_length_policy(const std::string& name);

// The most tokens of a sample, and the key that says so.
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
  // Gives samples their pictures' key, and features in place of pixels where it has them. Null, or
  // with augmentation: neither.
  const PictureLookup* lookup = nullptr;

  // max_length, or what the model has positions for (0: not known) where that is less.
  LengthBound bound(std::int64_t max_positions) const;
};

}  // namespace vlm::data
