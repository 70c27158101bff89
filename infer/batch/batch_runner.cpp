#include "infer/batch/batch_runner.h"

#include <chrono>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "infer/batch/media_queue.h"
#include "infer/engine/engine.h"
#include "infer/items/item_failure.h"
#include "infer/media/shown_media.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/progress.h"

namespace vlm::infer {
namespace {

// An item that the engine was asked about.
struct AskedItem {
  PreparedItem prepared;
  std::vector<SegmentScore> segments = {};
};

struct AskedGroup {
  std::vector<AskedItem> items = {};
  std::size_t ended = 0;   // items
  bool is_waiting = true;  // in the engine's queue
};

// What the engine told, on its thread, until the run's thread takes it.
class EngineNews {
 public:
  struct Start {
    std::shared_ptr<AskedGroup> group;
  };
  struct End {
    std::shared_ptr<AskedGroup> group;
    RequestAnswer answer;  // its id is the item's place in the group
  };
  using One = std::variant<Start, End>;

  void put(One one) {
    const std::lock_guard lock(mutex_);
    list_.push_back(std::move(one));
    changed_.notify_all();
  }
  std::vector<One> take(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return !list_.empty(); });
    return std::exchange(list_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<One> list_;
};

// Hands prepared groups to the engine, and its answers to the sink. Whatever the model throws costs
// no row of itself: what was with it is let go, and asked again one by one (retries()).
class Answerer {
 public:
  Answerer(Generator& generator, const BatchOptions& options, RowSink& sink)
      : options_(options),
        sink_(sink),
        processor_(generator.processor()),
        engine_(std::in_place, generator,
                EngineOptions{.max_running = options.batch_size,
                              .max_waiting = std::numeric_limits<std::int64_t>::max(),
                              .pace = GenerationPace::kBatch}) {}

  // Enough is waiting for the engine to fill its next pass.
  bool is_fed() const { return waiting_groups_ >= options_.batch_size; }
  bool is_idle() const { return open_items_ == 0; }

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
    while (!is_idle() && !options_.is_stopping()) work(std::chrono::milliseconds(100));
    is_alone_ = false;
  }

  // Finished answers become rows; waits so long for one.
  void work(std::chrono::milliseconds patience) {
    for (EngineNews::One& one : news_->take(patience)) {
      if (auto* end = std::get_if<EngineNews::End>(&one)) {
        --open_items_;
        AskedGroup& group = *end->group;
        if (++group.ended == group.items.size()) leave_queue(group);
        record(group.items.at(end->answer.id), std::move(end->answer));
      } else {
        leave_queue(*std::get<EngineNews::Start>(one).group);
      }
    }
    sink_.flush();
  }

  // Ends what is at work; what is answered already becomes rows.
  void stop() {
    is_stopped_ = true;
    engine_.reset();
    work({});
  }

 private:
  void leave_queue(AskedGroup& group) {
    if (std::exchange(group.is_waiting, false)) --waiting_groups_;
  }

  void ask(PreparedGroup prepared) {
    const bool has_videos = prepared.media.has_videos();
    const auto media = std::make_shared<ShownMedia>(std::move(prepared.media));
    const auto group = std::make_shared<AskedGroup>();
    EngineRequest request{.media_time_limit_s = options_.item_timeout_s};
    for (PreparedItem& item : prepared.items) {
      if (item.error.empty()) {
        add_request(std::move(item), *group, request.requests);
      } else if (item.is_out_of_memory && !is_alone_) {
        retries_.push_back(item.item.ordinal);
      } else {
        sink_.add(item.item, {.error = item.error});
      }
    }
    if (request.requests.empty()) return;
    if (has_videos) {
      request.media = media;
      request.show = [this, group](ShownMedia& shown, Request& one) {
        show_videos(shown, group->items.at(one.id).prepared, one);
      };
    } else {
      request.pictures = media->features();
    }
    open_items_ += std::ssize(request.requests);
    ++waiting_groups_;
    engine_->submit(std::move(request),
                    {.on_started = [news = news_, group] { news->put(EngineNews::Start{group}); },
                     .on_segment =
                         [this, group](const TimeSegment& segment, RequestAnswer& answer) {
                           add_segment(group->items.at(answer.id), segment, answer);
                         },
                     .on_done =
                         [news = news_, group](RequestAnswer answer) {
                           news->put(EngineNews::End{group, std::move(answer)});
                         }});
  }

  // The item's request, or its row when there can be none.
  void add_request(PreparedItem item, AskedGroup& group, std::vector<Request>& requests) {
    try {
      requests.push_back({.id = group.items.size(),
                          .prompt = std::move(item.prompt),
                          .layout = std::move(item.layout),
                          .options = options_for(item.item),
                          .stream = static_cast<std::uint64_t>(item.item.ordinal),
                          .choices = options_.choices,
                          .time_limit_s = options_.item_timeout_s});
      group.items.push_back({.prepared = std::move(item)});
    } catch (const std::exception& error) {
      sink_.add(item.item, {.error = failure_text(error)});
    }
  }

  // On the model's thread: the prompt about a take, and what the row tells of the videos. A
  // segment's frames stand in no row.
  void show_videos(ShownMedia& media, PreparedItem& prepared, Request& request) const {
    OrderedJson columns = video_columns(media.seen(), options_.video.sampling.drop_duplicates);
    if (options_.video.segment_s) {
      std::int64_t damaged = prepared.item.columns.value("damaged_frames", std::int64_t{0});
      for (const WatchedVideo& seen : media.seen()) damaged += seen.damaged_frames;
      columns = {{"duration_s", columns["duration_s"]}, {"damaged_frames", damaged}};
    }
    prepared.item.columns.update(columns);
    EncodedConversation prompt =
        processor_.encode_prompt(prepared.item.messages, media.processed());
    request.prompt = std::move(prompt.ids);
    request.layout = std::move(prompt.layout);
  }

  GenerationOptions options_for(const BatchItem& item) const {
    GenerationOptions options =
        apply_overrides(options_.generation, item.overrides, options_.rules.get());
    if (options.grammar && !options_.choices.empty()) {
      throw Error({.what = "what an answer must look like has no effect on given choices"});
    }
    return options;
  }

  // On the model's thread.
  void add_segment(AskedItem& asked, const TimeSegment& segment,
                   const RequestAnswer& answer) const {
    if (!options_.video.segment_s) return;
    asked.segments.push_back(score_segment(segment, answer.choices, options_.by_mean));
  }

  void record(AskedItem& asked, RequestAnswer answer) {
    const bool may_pass_alone =
        answer.outcome == Outcome::kFailed || answer.outcome == Outcome::kFailedBesideOthers;
    if (is_stopped_ && answer.outcome == Outcome::kStopped) return;
    if (may_pass_alone && !is_alone_) {
      retries_.push_back(asked.prepared.item.ordinal);
      return;
    }
    answer.segments = std::move(asked.segments);
    rank_segments(answer.segments);
    if (!answer.error.empty()) answer = {.error = std::move(answer.error)};
    sink_.add(asked.prepared.item, std::move(answer));
  }

  const BatchOptions& options_;
  RowSink& sink_;
  const Processor& processor_;
  std::shared_ptr<EngineNews> news_ = std::make_shared<EngineNews>();
  std::int64_t open_items_ = 0, waiting_groups_ = 0;
  std::vector<std::int64_t> retries_;  // ordinals
  bool is_alone_ = false, is_stopped_ = false;
  std::optional<Engine> engine_;  // last: its thread ends before what it tells
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

  // False when it was to stop before all was done.
  bool run() {
    bool is_at_end = false;
    while (!is_at_end && !options_.is_stopping()) {
      is_at_end = answer_queue();
      for (const std::int64_t ordinal : answerer_.release_retries()) {
        if (!options_.is_stopping()) try_alone(ordinal);
        is_at_end = is_at_end && !options_.is_stopping();
      }
    }
    answerer_.stop();
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

  // Until all is answered (true), it is to stop, or something has to be tried alone.
  bool answer_queue() {
    MediaQueue queue(generator_, items_, taken_, queue_options());
    bool is_at_end = false;
    while (!options_.is_stopping() && !answerer_.has_retries()) {
      if (is_at_end && answerer_.is_idle()) return true;
      const bool wants_more = !is_at_end && !answerer_.is_fed();
      if (wants_more && (answerer_.is_idle() || queue.is_ready(kPatience))) {
        auto group = queue.next();
        is_at_end = !group;
        if (group) start(std::move(*group));
      }
      work(wants_more ? std::chrono::milliseconds(0) : kLongPatience);
    }
    // What is at work ends first: a single item then has the machine to itself.
    while (!answerer_.is_idle() && !options_.is_stopping()) work(kLongPatience);
    return is_at_end && answerer_.is_idle();
  }

  void start(PreparedGroup group) {
    for (const PreparedItem& prepared : group.items) {
      taken_[static_cast<std::size_t>(prepared.item.ordinal)] = true;
    }
    answerer_.add(std::move(group));
  }

  void work(std::chrono::milliseconds patience) {
    answerer_.work(patience);
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

  // Waits for pictures, and for answers; between two of them it is asked whether to stop.
  static constexpr std::chrono::milliseconds kPatience{5}, kLongPatience{50};

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
