// Items of a list → answers → rows of a log: batched, safe to interrupt and start again.
//
//   ItemList ─► MediaQueue ─► Generator, fed as it gets room ─► RowSink ─► RowLog
//
// Pictures and videos take the same way; a video's frames are encoded while later ones are decoded,
// and by segments it is asked about piece by piece. Whatever an item causes costs its own row,
// never the run: when the model fails or memory is lacking, everything is let go and each item that
// was at work is tried once more, alone. What is written, and how a run goes on, is row_log.h's
// business; here is only the loop that answers.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "infer/batch/row_format.h"
#include "infer/batch/row_log.h"
#include "infer/batch/row_sink.h"
#include "infer/generator.h"
#include "infer/items/item_list.h"
#include "infer/media/video_stream.h"

namespace vlm::infer {

struct BatchOptions {
  std::int64_t batch_size =
      8;  // pictures or videos (or lists of them) whose questions are answered together
  std::int64_t workers = 2;  // threads that decode and process pictures
  RowSinkOptions sink = {};
  GenerationOptions generation = {};
  std::vector<std::vector<std::int64_t>> choices = {};  // ids; scored when there are any
  VideoStreamOptions video = {};  // with segment_s, the first choice is what segments are ranked by
  bool by_mean = false;           // and this what ranks it, as ChoiceList says
  double item_timeout_s = 0;      // with the model or decoding a video; 0: as long as it takes
};

// Answers what the log has no row for, and leaves it synced and, in input order, sorted. False when
// a stop request ended it before all was done. Throws Error when the output can't be written.
bool run_batch(Generator& generator, const ItemList& items, const RowFormat& format, RowLog& log,
               const BatchOptions& options);

// Number of items in a shard's groups.
std::int64_t count_items(const ItemList& items, const Shard& shard);

// The options with those of one item in their place. Throws Error for an override that the
// generator doesn't have.
GenerationOptions apply_overrides(GenerationOptions options, const OrderedJson& overrides);

}  // namespace vlm::infer
