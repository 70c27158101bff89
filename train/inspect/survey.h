// Statistics of a whole data set: lengths of samples, learned tokens, and what is wrong with which
// sample.
//
//   Dataset ─► survey_dataset (threads; pictures decoded, not processed) ─► Survey
//
// Samples are encoded as in training, but without making tiles.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/encode_options.h"
#include "vlm/core/schema/json_schema.h"
#include "vlm/models/interface/processor.h"

namespace vlm::train {

struct Survey {
  data::LengthBound bound = {};            // of a sample
  std::int64_t samples = 0;                // looked at
  std::vector<std::int64_t> lengths = {};  // tokens of the usable ones, in order
  std::int64_t longest = -1;               // index of the longest of them
  std::int64_t labels = 0, tiles = 0, media = 0, text_only = 0;
  std::int64_t cut = 0;                           // samples that length_policy truncate cuts
  std::vector<std::string> cut_answers = {};      // places of those that lose learned tokens
  std::vector<std::string> bad = {};              // reasons
  std::vector<std::string> too_long = {};         // reasons
  std::vector<std::string> nothing_learned = {};  // reasons
  std::vector<std::string> off_schema = {};       // places and faults of answers
  bool is_whole = true;                           // false: told to stop

  std::int64_t tokens() const;
};

// `threads` 0: as many as the machine has. With a schema, every turn of an assistant is compared
// with it. Shows progress; ends early when told to stop.
Survey survey_dataset(const data::Dataset& dataset, const Processor& processor,
                      const data::EncodeOptions& options, std::int64_t threads,
                      const JsonSchema* schema = nullptr);

// The value below which `share` of the sorted values lie (nearest rank); 0 for none.
std::int64_t quantile(const std::vector<std::int64_t>& sorted, double share);

// Counts of values in about `count` ranges of a round width.
struct HistogramRow {
  std::int64_t from = 0, to = 0;  // both included
  std::int64_t count = 0;
};
std::vector<HistogramRow> make_histogram(const std::vector<std::int64_t>& values,
                                         std::int64_t count);

}  // namespace vlm::train
