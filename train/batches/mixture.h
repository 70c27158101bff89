// Which samples an epoch takes of files that are mixed with weights.
//
// A file of weight w gives every epoch w × its number of samples: one of weight 0.25 is gone
// through in four epochs, a quarter each, one of weight 2 twice in each. A pure function of seed
// and epoch.
#pragma once

#include <cstdint>
#include <vector>

namespace vlm::train {

// A run of neighbouring samples (a file) and how many of them an epoch takes.
struct MixPart {
  std::int64_t samples = 0;
  std::int64_t draws = 0;
};

// How many samples an epoch takes in all.
std::int64_t count_draws(const std::vector<MixPart>& parts);

// The samples of an epoch, part by part. Before any sample of a part comes again, all others have;
// a pass through the part has a seeded order of its own, or the part's own when not `shuffled`.
std::vector<std::int64_t> take_epoch(const std::vector<MixPart>& parts, std::int64_t epoch,
                                     bool shuffled, std::uint64_t seed);

// Where `index` of 0 … size - 1 goes in a seeded order of them, in constant time and memory.
std::int64_t permuted(std::int64_t index, std::int64_t size, std::uint64_t seed);

}  // namespace vlm::train
