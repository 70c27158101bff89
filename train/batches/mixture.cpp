#include "train/batches/mixture.h"

#include "train/batches/data_plan.h"

namespace vlm::train {

std::int64_t count_draws(const std::vector<MixPart>& parts) {
  std::int64_t draws = 0;
  for (const MixPart& part : parts) draws += part.draws;
  return draws;
}

std::vector<std::int64_t> epoch_samples(const std::vector<MixPart>& parts, std::int64_t epoch,
                                        bool shuffled, std::uint64_t seed) {
  std::vector<std::int64_t> taken;
  taken.reserve(static_cast<std::size_t>(count_draws(parts)));
  std::int64_t first = 0;  // sample of the part
  for (std::size_t number = 0; number < parts.size(); ++number) {
    const MixPart& part = parts[number];
    for (std::int64_t i = 0; i < part.draws; ++i) {
      const std::int64_t draw = epoch * part.draws + i;  // counts on over the epochs
      const std::int64_t place = draw % part.samples;
      const auto pass = static_cast<std::uint64_t>(draw / part.samples);
      taken.push_back(
          first + (shuffled ? permuted(place, part.samples, mix_seed(seed, number, pass)) : place));
    }
    first += part.samples;
  }
  return taken;
}

std::int64_t permuted(std::int64_t index, std::int64_t size, std::uint64_t seed) {
  // A Feistel network permutes the numbers of an even number of bits; where it leads outside of the
  // range it goes on until it is back.
  int half = 1;
  while (size > std::int64_t{1} << (2 * half)) ++half;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  auto value = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = value >> half, right = value & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t next = left ^ (mix_seed(seed, round, right) & mask);
      left = right;
      right = next;
    }
    value = (left << half) | right;
  } while (value >= static_cast<std::uint64_t>(size));
  return static_cast<std::int64_t>(value);
}

}  // namespace vlm::train
