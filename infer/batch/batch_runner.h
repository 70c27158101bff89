// The loop of a batch run: asks the items and writes a row for each answer. It may be interrupted
// at any time; the same command goes on.
//
//   ItemList ─► MediaQueue ─► Engine, fed as it gets room ─► RowSink ─► RowLog
//
// A video's frames are encoded while later ones are decoded; with segments it is asked about one
// segment after the other. A failure costs one row, never the run: when the model throws or memory
// runs out, all requests are dropped and their items tried once more, one at a time. How rows are
// written and how a run goes on is in row_log.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "infer/batch/row_format.h"
#include "infer/batch/row_log.h"
#include "infer/batch/row_sink.h"
#include "infer/generator.h"
#include "infer/items/item_list.h"
#include "infer/media/video_stream.h"
#include "infer/structured/rule_compiler.h"

namespace vlm::infer {

struct BatchOptions {
  std::int64_t batch_size = 8;  // groups (pictures or videos) that are answered together
  std::int64_t workers = 2;     // threads that decode and process pictures
  RowSinkOptions sink = {};
  GenerationOptions generation = {};
  std::vector<std::vector<std::int64_t>> choices = {};  // ids; scored when there are any
  VideoStreamOptions video = {};  // with segment_s, the first choice's score ranks the segments …
  bool by_mean = false;           // … by its mean over tokens instead of its sum
  double item_timeout_s = 0;      // of the model and of decoding a video; 0: no limit
  std::function<bool()> should_stop = {};  // asked all the time, in the calling thread

  bool is_stopping() const { return should_stop && should_stop(); }
  std::shared_ptr<RuleCompiler> rules = {};  // for what items say of their answers
};

// Answers the items that have no row in the log. At its return the log is on the disk and, in input
// order, sorted. Returns false when it was to stop before all items were done. Throws Error
// when the output can't be written.
bool run_batch(Generator& generator, const ItemList& items, const RowFormat& format, RowLog& log,
               const BatchOptions& options);

// How many items belong to the shard.
std::int64_t count_items(const ItemList& items, const Shard& shard);

// The options, with values of one item's overrides in place of theirs. Throws Error for an override
// that isn't a generation option, and for a rule of its answer that `rules` can't compile.
GenerationOptions apply_overrides(GenerationOptions options, const OrderedJson& overrides,
                                  RuleCompiler* rules = nullptr);

}  // namespace vlm::infer
