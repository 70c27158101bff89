#include "infer/batch/batch_runner.h"

#include <deque>
#include <memory>
#include <unordered_map>

#include "infer/batch/media_queue.h"
#include "infer/media/shown_media.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"

namespace vlm::infer {
namespace {

// An item whose requests are with the generator: one, or one a segment.
struct AskedItem {
  PreparedItem prepared;
  Answer answer;
  std::int64_t in_flight = 0;
  bool is_last_asked = false;

  bool has_failed() const { return !prepared.error.empty(); }
};

// Hands prepared groups to the generator, and its answers to the sink.
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
    OpenGroup open{.media = std::move(group.media)};
    for (PreparedItem& one : group.items) {
      sink_.expect(one.item.ordinal);
      if (one.error.empty()) {
        open.items.push_back(std::make_shared<AskedItem>(AskedItem{std::move(one)}));
      } else {
        sink_.add(one.item, {.error = one.error});
      }
    }
    if (!open.items.empty()) open_.push_back(std::move(open));
  }

  // Asks about the next take of the oldest open group's media. A stop request may end it before.
  void feed() {
    OpenGroup& open = open_.front();
    std::erase_if(open.items, [](const auto& one) { return one->has_failed(); });
    if (open.items.empty()) return open_.pop_front();
    try {
      if (open.media.has_videos() && !generator_.read(open.media)) return;
      submit(open);
    } catch (const Error& error) {
      for (const auto& one : open.items) fail(*one, error.what());
    }
    if (!open.media.has_more()) open_.pop_front();
  }

  // Lets the generator work; its finished answers become rows.
  void work() {
    for (Answer& answer : generator_.step()) {
      const auto found = asked_.extract(answer.id);
      take(*found.mapped().item, found.mapped().segment, std::move(answer));
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
    Segment segment;
  };

  // A request for every item that can still be answered.
  void submit(OpenGroup& open) {
    RequestGroup group{.pictures = open.media.features()};
    for (const auto& one : open.items) {
      PreparedItem& prepared = one->prepared;
      if (open.media.has_videos()) {
        show_videos(open.media, prepared);
        encode_prompt(prepared, generator_.processor(), open.media.processed());
      }
      if (prepared.error.empty()) add_request(prepared, group);
      if (!prepared.error.empty()) {
        fail(*one, std::exchange(prepared.error, ""));
        continue;
      }
      one->is_last_asked = !open.media.has_more();
      ++one->in_flight;
      asked_.emplace(next_id_++, Asked{one, open.media.segment()});
    }
    if (!group.requests.empty()) generator_.submit(std::move(group));
  }

  // What the row tells of the videos. A segment's frames stand in no row.
  void show_videos(const ShownMedia& media, PreparedItem& one) const {
    OrderedJson columns = video_columns(media.seen(), options_.video.sampling.drop_duplicates);
    if (options_.video.segment_s) {
      std::int64_t damaged = one.item.columns.value("damaged_frames", std::int64_t{0});
      for (const SeenVideo& seen : media.seen()) damaged += seen.damaged_frames;
      columns = {{"duration_s", columns["duration_s"]}, {"damaged_frames", damaged}};
    }
    one.item.columns.update(columns);
  }

  // Adds the item's request to the group, or tells in its error why there is none.
  void add_request(PreparedItem& prepared, RequestGroup& group) {
    try {
      group.requests.push_back(
          {.id = next_id_,
           .prompt = std::move(prepared.prompt),
           .options = apply_overrides(options_.generation, prepared.item.overrides),
           .stream = static_cast<std::uint64_t>(prepared.item.ordinal),
           .choices = options_.choices});
    } catch (const Error& error) {
      prepared.error = error.what();
    }
  }

  void take(AskedItem& one, const Segment& segment, Answer answer) {
    --one.in_flight;
    if (one.has_failed()) return;  // its row is written
    if (!answer.error.empty()) return fail(one, answer.error);
    if (options_.video.segment_s) {
      one.answer.segments.push_back(score_segment(segment, answer.choices, options_.by_mean));
      answer.segments = std::move(one.answer.segments);
    }
    one.answer = std::move(answer);
    if (!one.is_last_asked || one.in_flight > 0) return;
    rank_segments(one.answer.segments);
    sink_.add(one.prepared.item, std::move(one.answer));
  }

  // Its row, once.
  void fail(AskedItem& one, const std::string& error) {
    if (one.has_failed()) return;
    one.prepared.error = error;
    sink_.add(one.prepared.item, {.error = error});
  }

  Generator& generator_;
  const BatchOptions& options_;
  RowSink& sink_;
  std::deque<OpenGroup> open_;
  std::uint64_t next_id_ = 0;
  std::unordered_map<std::uint64_t, Asked> asked_;  // by the request's id
};

void tell_videos(const PictureEncoder& encoder) {
  if (encoder.decoded_videos() + encoder.cached_videos() == 0) return;
  log_info(concat("videos or segments: ", encoder.decoded_videos(), " decoded, ",
                  encoder.cached_videos(), " read from the feature cache"));
}

}  // namespace

bool run_batch(Generator& generator, const ItemList& items, const RowFormat& format, RowLog& log,
               const BatchOptions& options) {
  RowSink sink(log, format, options.sink);
  Answerer answerer(generator, options, sink);
  // Each video ahead has a decoder and frames of its own: no more of them than workers.
  const std::int64_t ahead = items.shows_videos() ? 0 : options.batch_size * 2;
  MediaQueue queue(generator, items, log.done(),
                   {.workers = options.workers,
                    .ahead = ahead,
                    .shard = log.header().shard,
                    .video = options.video});
  Progress progress("items", log.header().shard_items, log.rows());
  std::int64_t shown = log.rows();
  bool is_at_end = false;
  while (!stop_requested()) {
    while (!answerer.is_fed() && !stop_requested()) {
      if (answerer.has_open()) {
        answerer.feed();
      } else if (!is_at_end && (answerer.is_idle() || queue.is_ready())) {
        auto group = queue.next();
        is_at_end = !group;
        if (group) answerer.add(std::move(*group));
      } else {
        break;
      }
    }
    answerer.work();
    if (log.rows() > shown) progress.update(shown = log.rows());
    if (is_at_end && answerer.is_idle()) break;
  }
  const bool is_done = is_at_end && answerer.is_idle();
  log.sync();
  if (is_done && options.sink.in_input_order) log.sort();
  tell_videos(generator.encoder());
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
