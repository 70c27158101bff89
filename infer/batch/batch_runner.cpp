#include "infer/batch/batch_runner.h"

#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "infer/batch/media_queue.h"
#include "infer/items/item_failure.h"
#include "infer/media/shown_media.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/progress.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::infer {
namespace {

// An item whose requests are with the generator: one, or one a segment.
struct AskedItem {
  PreparedItem prepared;
  RequestAnswer answer;
  std::int64_t in_flight = 0;
  bool is_last_asked = false;

  bool has_failed() const { return !prepared.error.empty(); }
};

// Hands prepared groups to the generator, and its answers to the sink. Whatever the model throws
// costs no row of itself: what was with it is let go, and asked again one by one (retries()).
class Answerer {
 public:
  Answerer(Generator& generator, const BatchOptions& options, RowSink& sink)
      : generator_(generator), options_(options), sink_(sink) {
    generator_.set_batch_size(options.batch_size);
  }

  // Enough is waiting for the generator to fill its next pass.
  bool is_fed() const { return generator_.waiting() >= options_.batch_size; }
  bool is_idle() const { return generator_.is_idle() && !has_open(); }
  // A group's media are not all asked about yet.
  bool has_open() const { return !open_.empty(); }

  void add(PreparedGroup group) {
    for (const PreparedItem& prepared : group.items) sink_.expect(prepared.item.ordinal);
    ask(std::move(group));
  }

  // Items whose answers failed beside others and that are to be tried alone.
  bool has_retries() const { return !retries_.empty(); }
  std::vector<std::int64_t> release_retries() { return std::exchange(retries_, {}); }

  // The only item at work, from its files on; a failure is its row's error now.
  void answer_alone(PreparedGroup group) {
    is_alone_ = true;
    ask(std::move(group));
    while (!is_idle() && !stop_requested()) {
      if (has_open() && !is_fed()) feed();
      work();
    }
    is_alone_ = false;
  }

  // Asks about the next take of the oldest open group's media. A stop request may end it before.
  void feed() {
    OpenGroup& open = open_.front();
    std::erase_if(open.items, [](const auto& asked) { return asked->has_failed(); });
    if (open.items.empty()) return open_.pop_front();
    try {
      if (open.media.has_videos() && !generator_.read(open.media, options_.item_timeout_s)) return;
      submit(open);
    } catch (const std::exception& error) {
      for (const auto& asked : open.items) give_up(*asked, error);
      return open_.pop_front();
    }
    if (!open.media.has_more()) open_.pop_front();
  }

  // Lets the generator work; its finished answers become rows.
  void work() {
    std::vector<RequestAnswer> answers;
    try {
      answers = generator_.step();
    } catch (const std::exception& error) {
      drop_requests(error);
    }
    for (RequestAnswer& answer : answers) {
      const auto found = asked_.extract(answer.id);
      record(*found.mapped().item, found.mapped().segment, std::move(answer));
    }
    sink_.flush();
  }

 private:
  struct OpenGroup {
    ShownMedia media;
    std::vector<std::shared_ptr<AskedItem>> items = {};
  };
  struct Asked {
    std::shared_ptr<AskedItem> item;
    TimeSegment segment;
  };

  void ask(PreparedGroup group) {
    OpenGroup open{.media = std::move(group.media)};
    for (PreparedItem& prepared : group.items) {
      if (prepared.error.empty()) {
        open.items.push_back(std::make_shared<AskedItem>(AskedItem{std::move(prepared)}));
      } else if (prepared.is_out_of_memory && !is_alone_) {
        retries_.push_back(prepared.item.ordinal);
      } else {
        sink_.add(prepared.item, {.error = prepared.error});
      }
    }
    if (!open.items.empty()) open_.push_back(std::move(open));
  }

  // The generator is left with nothing: whose fault the exception was isn't known.
  void drop_requests(const std::exception& error) {
    generator_.abandon();
    std::unordered_map<std::uint64_t, Asked> requests;
    requests.swap(asked_);
    for (auto& [id, asked] : requests) {
      if (is_alone_) {
        fail(*asked.item, failure_text(error));
      } else {
        try_alone(*asked.item);
      }
    }
    // Videos that are being asked about piece by piece begin anew.
    for (OpenGroup& open : open_) {
      std::erase_if(open.items, [](const auto& asked) { return asked->has_failed(); });
    }
  }

  void try_alone(AskedItem& asked) {
    if (asked.has_failed()) return;
    asked.prepared.error = "tried alone";
    retries_.push_back(asked.prepared.item.ordinal);
  }

  // After an exception that was for this item, or for a group that it is in.
  void give_up(AskedItem& asked, const std::exception& error) {
    if (is_out_of_memory(error) && !is_alone_) return try_alone(asked);
    fail(asked, failure_text(error));
  }

  // A request for every item that can still be answered.
  void submit(OpenGroup& open) {
    RequestGroup group{.pictures = open.media.features()};
    for (const auto& asked : open.items) {
      PreparedItem& prepared = asked->prepared;
      if (open.media.has_videos()) {
        show_videos(open.media, prepared);
        encode_prompt(prepared, generator_.processor(), open.media.processed());
      }
      if (prepared.error.empty()) add_request(prepared, group);
      if (!prepared.error.empty()) {
        fail(*asked, std::exchange(prepared.error, ""));
        continue;
      }
      asked->is_last_asked = !open.media.has_more();
      ++asked->in_flight;
      asked_.emplace(next_id_++, Asked{asked, open.media.segment()});
    }
    if (!group.requests.empty()) generator_.submit(std::move(group));
  }

  // What the row tells of the videos. A segment's frames stand in no row.
  void show_videos(const ShownMedia& media, PreparedItem& prepared) const {
    OrderedJson columns = video_columns(media.seen(), options_.video.sampling.drop_duplicates);
    if (options_.video.segment_s) {
      std::int64_t damaged = prepared.item.columns.value("damaged_frames", std::int64_t{0});
      for (const WatchedVideo& seen : media.seen()) damaged += seen.damaged_frames;
      columns = {{"duration_s", columns["duration_s"]}, {"damaged_frames", damaged}};
    }
    prepared.item.columns.update(columns);
  }

  GenerationOptions options_for(const BatchItem& item) const {
    GenerationOptions options =
        apply_overrides(options_.generation, item.overrides, options_.rules.get());
    if (options.grammar && !options_.choices.empty()) {
      throw Error({.what = "what an answer must look like has no effect on given choices"});
    }
    return options;
  }

  // Adds the item's request to the group, or tells in its error why there is none.
  void add_request(PreparedItem& prepared, RequestGroup& group) {
    try {
      group.requests.push_back({.id = next_id_,
                                .prompt = std::move(prepared.prompt),
                                .layout = std::move(prepared.layout),
                                .options = options_for(prepared.item),
                                .stream = static_cast<std::uint64_t>(prepared.item.ordinal),
                                .choices = options_.choices,
                                .time_limit_s = options_.item_timeout_s});
    } catch (const std::exception& error) {
      prepared.error = failure_text(error);
    }
  }

  void record(AskedItem& asked, const TimeSegment& segment, RequestAnswer answer) {
    --asked.in_flight;
    if (asked.has_failed()) return;  // its row is written
    if (!answer.error.empty()) return fail(asked, answer.error);
    if (options_.video.segment_s) {
      asked.answer.segments.push_back(score_segment(segment, answer.choices, options_.by_mean));
      answer.segments = std::move(asked.answer.segments);
    }
    asked.answer = std::move(answer);
    if (!asked.is_last_asked || asked.in_flight > 0) return;
    rank_segments(asked.answer.segments);
    sink_.add(asked.prepared.item, std::move(asked.answer));
  }

  // Its row, once.
  void fail(AskedItem& asked, const std::string& error) {
    if (asked.has_failed()) return;
    asked.prepared.error = error;
    sink_.add(asked.prepared.item, {.error = error});
  }

  Generator& generator_;
  const BatchOptions& options_;
  RowSink& sink_;
  std::deque<OpenGroup> open_;
  std::uint64_t next_id_ = 0;
  std::unordered_map<std::uint64_t, Asked> asked_;  // by the request's id
  std::vector<std::int64_t> retries_;               // ordinals
  bool is_alone_ = false;
};

void log_videos(const PictureEncoder& encoder) {
  if (encoder.decoded_videos() + encoder.cached_videos() == 0) return;
  log_info(concat("videos or segments: ", encoder.decoded_videos(), " decoded, ",
                  encoder.cached_videos(), " read from the feature cache"));
}

// Takes groups from a queue, gives them to the answerer, and empties both for what must be tried
// alone.
class BatchRun {
 public:
  BatchRun(Generator& generator, const ItemList& items, RowLog& log, RowSink& sink,
           const BatchOptions& options)
      : generator_(generator),
        items_(items),
        log_(log),
        options_(options),
        answerer_(generator, options, sink),
        sink_(sink),
        taken_(log.done()),
        progress_("items", log.header().shard_items, log.rows()),
        shown_(log.rows()) {}

  // False when a stop request came before all was done.
  bool run() {
    bool is_at_end = false;
    while (!is_at_end && !stop_requested()) {
      is_at_end = answer_queue();
      for (const std::int64_t ordinal : answerer_.release_retries()) {
        if (!stop_requested()) try_alone(ordinal);
        is_at_end = is_at_end && !stop_requested();
      }
    }
    return is_at_end;
  }

 private:
  MediaQueueOptions queue_options() const {
    // Each video ahead has a decoder and frames of its own: no more of them than workers.
    return {.workers = options_.workers,
            .ahead = items_.shows_videos() ? 0 : options_.batch_size * 2,
            .shard = log_.header().shard,
            .video = options_.video};
  }

  // Until all is answered (true), a stop request, or something has to be tried alone.
  bool answer_queue() {
    MediaQueue queue(generator_, items_, taken_, queue_options());
    bool is_at_end = false;
    while (!stop_requested()) {
      while (!answerer_.is_fed() && !answerer_.has_retries() && !stop_requested()) {
        if (answerer_.has_open()) {
          answerer_.feed();
        } else if (!is_at_end && (answerer_.is_idle() || queue.is_ready())) {
          auto group = queue.next();
          is_at_end = !group;
          if (group) start(std::move(*group));
        } else {
          break;
        }
      }
      work();
      // What is at work ends first: a single item then has the machine to itself.
      if (answerer_.has_retries() && !answerer_.is_idle()) drain();
      if (answerer_.has_retries() || (is_at_end && answerer_.is_idle())) break;
    }
    return is_at_end && answerer_.is_idle();
  }

  void drain() {
    while (!answerer_.is_idle() && !stop_requested()) {
      if (answerer_.has_open() && !answerer_.is_fed()) answerer_.feed();
      work();
    }
  }

  void start(PreparedGroup group) {
    for (const PreparedItem& prepared : group.items) {
      taken_[static_cast<std::size_t>(prepared.item.ordinal)] = true;
    }
    answerer_.add(std::move(group));
  }

  void work() {
    answerer_.work();
    if (log_.rows() > shown_) progress_.update(shown_ = log_.rows());
  }

  void try_alone(std::int64_t ordinal) {
    generator_.encoder().release_memory();
    std::vector<bool> others(taken_.size(), true);
    others[static_cast<std::size_t>(ordinal)] = false;
    MediaQueueOptions options = queue_options();
    options.workers = options.ahead = 1;
    MediaQueue queue(generator_, items_, std::move(others), options);
    if (auto group = queue.next()) answerer_.answer_alone(std::move(*group));
    sink_.flush();
  }

  Generator& generator_;
  const ItemList& items_;
  RowLog& log_;
  const BatchOptions& options_;
  Answerer answerer_;
  RowSink& sink_;
  std::vector<bool> taken_;  // items with a row, or handed out by a queue
  Progress progress_;
  std::int64_t shown_;
};

}  // namespace

bool run_batch(Generator& generator, const ItemList& items, const RowFormat& format, RowLog& log,
               const BatchOptions& options) {
  log.begin();
  RowSink sink(log, format, options.sink);
  const bool is_done = BatchRun(generator, items, log, sink, options).run();
  log.sync();
  if (is_done && options.sink.in_input_order) log.sort();
  log_videos(generator.encoder());
  return is_done;
}

std::int64_t count_items(const ItemList& items, const Shard& shard) {
  std::int64_t count = 0;
  for (std::int64_t group = shard.index; group < items.groups(); group += shard.count) {
    count += items.first_item(group + 1) - items.first_item(group);
  }
  return count;
}

GenerationOptions apply_overrides(GenerationOptions options, const OrderedJson& overrides,
                                  RuleCompiler* rules) {
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
    } else if (is_rule_name(key) && rules) {
      const auto rule = read_rule(key, value, key);
      options.grammar = rule ? rules->compile(*rule, key) : nullptr;
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
