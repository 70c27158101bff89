// What training makes of a sample, without the tiles of its pictures. For inspecting data.
#pragma once

#include <string>
#include <vector>

#include "data/batch.h"
#include "data/media/media_texts.h"

namespace vlm::data {

struct Preview {
  Sample sample;
  EncodedConversation encoded;    // the whole sample, before any cut
  std::vector<MediumText> texts;  // of its media
  std::int64_t tiles = 0;
  Example example;  // after the cut; empty when `problem` says why there is none

  enum class Problem { kNone, kBad, kTooLong, kNothingLearned };
  Problem problem = Problem::kNone;
  std::string reason;

  // Learned tokens that the cut took away.
  std::int64_t cut_labels() const;
  // Learned tokens, of those that are predicted at all.
  std::int64_t labels() const;
};

// A sample that can't be used is no exception here but a `problem` with its `reason`.
Preview preview_sample(const Dataset& dataset, std::int64_t index, const Processor& processor,
                       const EncodeOptions& options, MediaTexts& texts);

}  // namespace vlm::data
