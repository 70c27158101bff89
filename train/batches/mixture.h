// Which samples an epoch uses when files are mixed with weights.
//
// A file of weight w contributes w × its number of samples to every epoch: with weight 0.25 each
// epoch uses another quarter, with weight 2 each epoch uses every sample twice. A pure function of
// seed and epoch.
#pragma once

#include <cstdint>
#include <vector>

namespace vlm::train {

// The samples of a file, and how many of them an epoch uses.
struct MixPart {
  std::int64_t samples = 0;
  std::int64_t draws = 0;
};

// Number of samples in an epoch.
std::int64_t count_draws(const std::vector<MixPart>& parts);

// Indices of the samples of an epoch, part by part. No sample of a part is repeated before all
// others of it were used. If `shuffled`, every pass through a part has another order, drawn from
// `seed`; else the order of the part.
std::vector<std::int64_t> epoch_samples(const std::vector<MixPart>& parts, std::int64_t epoch,
                                        bool shuffled, std::uint64_t seed);

// Entry `index` of a random permutation of 0 … size - 1, in constant time and memory.
std::int64_t permuted(std::int64_t index, std::int64_t size, std::uint64_t seed);

}  // namespace vlm::train
