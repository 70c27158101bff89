#include "infer/batch/batch_runner.h"

#include "infer/batch/picture_queue.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"

namespace vlm::infer {
namespace {

// Answers prepared items. They go in in input order; the sink takes answers in any order.
class Answerer {
 public:
  Answerer(Generator& generator, const BatchOptions& options, RowSink& sink)
      : generator_(generator), options_(options), sink_(sink) {}

  void add(PreparedItem item) {
    sink_.expect(item.item.ordinal);
    if (item.error.empty()) {
      try {
        apply_overrides(options_.generation, item.item.overrides);
      } catch (const Error& error) {
        item.error = error.what();
      }
    }
    if (!item.error.empty()) return sink_.add(item.item, {.error = item.error});
    const bool fits = batch_.empty() || batch_[0].item.overrides == item.item.overrides;
    if (!fits || is_full()) finish();
    batch_.push_back(std::move(item));
  }

  // Writes the rows that are ready.
  void write() {
    if (is_full()) answer_batch();
    sink_.flush();
  }

  // Answers what is waiting, and writes it.
  void finish() {
    answer_batch();
    sink_.flush();
  }

 private:
  bool is_full() const { return batch_.size() >= static_cast<std::size_t>(options_.batch_size); }

  void answer_batch() {
    if (batch_.empty()) return;
    answer(batch_, apply_overrides(options_.generation, batch_[0].item.overrides));
    batch_.clear();
  }

  // One prompt that the model refuses (too long) must not take the batch with it: then each is
  // tried alone.
  void answer(const std::vector<PreparedItem>& items, const GenerationOptions& generation) {
    std::vector<EncodedConversation> prompts;
    for (const PreparedItem& item : items) prompts.push_back(item.prompt);
    std::vector<Generation> answers;
    try {
      answers = generator_.generate(prompts, generation);
    } catch (const Error& error) {
      if (items.size() == 1) return sink_.add(items[0].item, {.error = error.what()});
      for (const PreparedItem& item : items) answer({item}, generation);
      return;
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
      sink_.add(items[i].item, {.generation = std::move(answers[i]),
                                .prompt_tokens = static_cast<std::int64_t>(prompts[i].ids.size())});
    }
  }

  Generator& generator_;
  const BatchOptions& options_;
  RowSink& sink_;
  std::vector<PreparedItem> batch_;
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
  bool is_stopped = false;
  while (auto group = queue.next()) {
    for (PreparedItem& item : *group) answerer.add(std::move(item));
    answerer.write();
    progress.update(log.rows());
    is_stopped = stop_requested();
    if (is_stopped) break;
  }
  if (!is_stopped) answerer.finish();
  progress.update(log.rows());
  log.sync();
  if (!is_stopped && options.sink.in_input_order) log.sort();
  return !is_stopped;
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
    // Values that mean what is done anyhow: one answer, the likeliest, which no seed changes.
    const bool is_greedy =
        (key == "temperature" && value == 0) || (key == "n" && value == 1) || key == "seed" ||
        (key == "top_p" && (value == 1 || overrides.value("temperature", 1.0) == 0));
    if (key == "max_new_tokens") {
      options.max_new_tokens = value.get<std::int64_t>();
    } else if (!is_greedy) {
      throw Error({.what = "the request asks for what generation doesn't have",
                   .where = key,
                   .got = value.dump(),
                   .wanted = "greedy answers: temperature 0, n 1, no stop"});
    }
  }
  return options;
}

}  // namespace vlm::infer
