#include "infer/batch/batch_runner.h"

#include <unordered_map>

#include "infer/batch/picture_queue.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"

namespace vlm::infer {
namespace {

// Hands prepared groups to the generator, and its answers to the sink.
class Answerer {
 public:
  Answerer(Generator& generator, const BatchOptions& options, RowSink& sink)
      : generator_(generator), options_(options), sink_(sink) {
    generator_.set_batch_size(options.batch_size);
  }

  // Enough is waiting for the generator to fill its next pass.
  bool is_fed() const { return generator_.waiting() >= options_.batch_size; }
  bool is_idle() const { return generator_.is_idle(); }

  void add(std::vector<PreparedItem> items) {
    RequestGroup group;
    for (PreparedItem& one : items) {
      sink_.expect(one.item.ordinal);
      if (one.error.empty()) submit(one, group);
      if (!one.error.empty()) {
        sink_.add(one.item, {.error = one.error});
      } else {
        asked_.emplace(one.item.ordinal, std::move(one.item));
      }
    }
    if (!group.requests.empty()) generator_.submit(std::move(group));
  }

  // Lets the generator work; its finished answers become rows.
  void work() {
    for (Answer& answer : generator_.step()) {
      const auto asked = asked_.extract(static_cast<std::int64_t>(answer.id));
      sink_.add(asked.mapped(), std::move(answer));
    }
    sink_.flush();
  }

 private:
  // Adds the item's request to the group, or tells in its error why there is none.
  void submit(PreparedItem& one, RequestGroup& group) {
    try {
      const auto ordinal = static_cast<std::uint64_t>(one.item.ordinal);
      Request request{.id = ordinal,
                      .prompt = std::move(one.prompt.ids),
                      .options = apply_overrides(options_.generation, one.item.overrides),
                      .stream = ordinal,
                      .choices = options_.choices};
      if (!group.pictures && one.prompt.pixel_values.defined()) {
        group.pictures =
            std::make_shared<PictureFeatures>(PictureFeatures{one.prompt.pixel_values});
      }
      group.requests.push_back(std::move(request));
    } catch (const Error& error) {
      one.error = error.what();
    }
  }

  Generator& generator_;
  const BatchOptions& options_;
  RowSink& sink_;
  std::unordered_map<std::int64_t, BatchItem> asked_;  // by ordinal
};

}  // namespace

bool run_batch(Generator& generator, const ItemList& items, const RowFormat& format, RowLog& log,
               const BatchOptions& options) {
  RowSink sink(log, format, options.sink);
  Answerer answerer(generator, options, sink);
  PictureQueue queue(
      generator.processor(), items, log.done(),
      {.workers = options.workers, .ahead = options.batch_size * 2, .shard = log.header().shard});
  Progress progress("items", log.header().shard_items, log.rows());
  std::int64_t shown = log.rows();
  bool is_at_end = false;
  while (!stop_requested()) {
    while (!is_at_end && !answerer.is_fed() && (answerer.is_idle() || queue.is_ready())) {
      auto group = queue.next();
      is_at_end = !group;
      if (group) answerer.add(std::move(*group));
    }
    answerer.work();
    if (log.rows() > shown) progress.update(shown = log.rows());
    if (is_at_end && answerer.is_idle()) break;
  }
  const bool is_done = is_at_end && answerer.is_idle();
  log.sync();
  if (is_done && options.sink.in_input_order) log.sort();
  return is_done;
}

std::int64_t count_items(const ItemList& items, const Shard& shard) {
  std::int64_t count = 0;
  for (std::int64_t group = shard.index; group < items.groups(); group += shard.count) {
    count += items.first_item(group + 1) - items.first_item(group);
  }
  return count;
}

GenerationOptions apply_overrides(GenerationOptions options, const OrderedJson& overrides) {
  for (const auto& [key, value] : overrides.items()) {
    if (key == "max_new_tokens") {
      options.max_new_tokens = value.get<std::int64_t>();
    } else if (key == "seed") {
      options.seed = value.get<std::uint64_t>();
    } else if (key == "stop") {
      options.stop_strings = value.get<std::vector<std::string>>();
    } else if (key == "n") {
      options.num_return_sequences = value.get<std::int64_t>();
    } else if (key == "temperature") {
      options.temperature = value.get<double>();
    } else if (key == "top_p") {
      options.top_p = value.get<double>();
    } else {
      throw Error({.what = "unknown override", .where = key, .got = value.dump()});
    }
  }
  // There, temperature is 1 when nobody names it, and all tokens take part.
  const bool asks_for_draws = overrides.contains("temperature") || overrides.contains("top_p") ||
                              options.num_return_sequences > options.num_beams;
  if (asks_for_draws) {
    options.do_sample = options.temperature > 0 && options.top_p > 0;
    options.top_k = 0;
    if (!options.do_sample) options.temperature = options.top_p = 1;
  }
  options.validate("body");
  return options;
}

}  // namespace vlm::infer
