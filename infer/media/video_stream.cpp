#include "infer/media/video_stream.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/error_text.h"
#include "vlm/io/file_digest.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostAtOnce = 16;  // parts of a clip; 50 MB for tiles with sides of 512
constexpr std::int64_t kAhead = 4;        // parts decoded while those at once are encoded

}  // namespace

// What the thread does, one take after the other. The file is opened when the first one needs it.
class VideoStream::Takes {
 public:
  Takes(VideoStream& stream, Pieces::Output& output)
      : stream_(stream),
        output_(output),
        path_(stream.request_.path),
        options_(stream.request_.options) {
    std::error_code ignored;  // what is no file can't be kept, or is an error when it is opened
    const bool can_be_kept = stream_.encoder_.has_cache() && fs::is_regular_file(path_, ignored);
    if (can_be_kept) content_ = digest_file(path_);
  }

  void run() {
    if (!options_.segment_s) {
      read(options_.sampling, {}, true);
      return;
    }
    const double end_s = std::min(options_.sampling.end_s.value_or(duration()), duration());
    const auto segments =
        split_range({options_.sampling.start_s.value_or(0), end_s}, *options_.segment_s);
    for (const TimeSegment& segment : segments) {
      data::VideoSampling sampling = options_.sampling;
      sampling.start_s = segment.start_s;
      const bool is_last = &segment == &segments.back();
      // The video's end stays unset: rounding must not lose its last frame.
      if (!is_last) sampling.end_s = segment.end_s;
      if (!read(sampling, segment, is_last)) return;
    }
  }

 private:
  // Hands out one take. False: nobody wants more.
  bool read(const data::VideoSampling& sampling, const TimeSegment& segment, bool is_last) {
    EndOfTake end{
        .segment = segment, .key = make_key(describe_segment(sampling)), .is_last = is_last};
    if (const auto found = find(end.key)) {
      stream_.encoder_.count_video(/*is_cached=*/true);
      end.seen = parse_note(found->note);
      end.features = found->features;
      return output_.put(std::move(end));
    }
    data::ClipReader& reader = open();
    reader.choose(sampling, stream_.processor_.frame_sampling());
    end.seen.duration_s = reader.duration_s();
    end.seen.chosen_frames = reader.frame_count();
    bool is_wanted = true;
    const Processor& processor = stream_.processor_;
    end.seen.dropped_duplicates = reader.for_each_group(
        processor.frames_at_once(), end.seen.times_s, [&](const std::vector<Image>& frames) {
          end.seen.height = frames[0].height;
          end.seen.width = frames[0].width;
          is_wanted = output_.put(processor.process_frames(frames, end.seen.chosen_frames));
          return is_wanted;
        });
    if (!is_wanted) return false;
    end.seen.damaged_frames = reader.damaged_frames();
    if (end.seen.times_s.empty()) throw Error({.what = "no frame could be read"});
    stream_.encoder_.count_video(/*is_cached=*/false);
    return output_.put(std::move(end));
  }

  // Of the whole file; remembered beside the features, so that segments are known without it.
  double duration() {
    if (duration_s_) return *duration_s_;
    const std::string key = make_key("duration");
    if (const auto found = find(key)) {
      duration_s_ = parse_note(found->note).duration_s;
    } else {
      duration_s_ = open().duration_s();
      stream_.encoder_.store(key, at::empty({0}), to_note({.duration_s = *duration_s_}));
    }
    return *duration_s_;
  }

  data::ClipReader& open() {
    if (!reader_) reader_.emplace(path_);
    return *reader_;
  }

  std::string describe_segment(const data::VideoSampling& sampling) const {
    const Processor& processor = stream_.processor_;
    return concat(data::describe_sampling(sampling, processor.frame_sampling()).dump(), " ",
                  processor.frame_settings());
  }

  std::string make_key(const std::string& what) const {
    return content_.empty() ? ""
                            : stream_.encoder_.make_key(concat("video 4 ", content_, " ", what));
  }

  std::optional<CachedFeatures> find(const std::string& key) const {
    return key.empty() ? std::nullopt : stream_.encoder_.find(key);
  }

  VideoStream& stream_;
  Pieces::Output& output_;
  const std::string& path_;
  const VideoStreamOptions& options_;
  std::string content_;  // digest of the file; empty: nothing can be kept
  std::optional<data::ClipReader> reader_;
  std::optional<double> duration_s_;
};

VideoStream::VideoStream(VideoRequest request, const Processor& processor, PictureEncoder& encoder)
    : request_(std::move(request)),
      processor_(processor),
      encoder_(encoder),
      at_once_(std::clamp<std::int64_t>(encoder.units_at_once(), 1, kMostAtOnce)),
      pieces_({.name = "vlm video", .values = at_once_ + kAhead},
              {.open = [has_begun = false]() mutable -> std::optional<Start> {
                 if (std::exchange(has_begun, true)) return std::nullopt;
                 return Start{};
               },
               .make = [this](Start, auto& output) { run(output); }}) {}

void VideoStream::run(Pieces::Output& output) {
  try {
    Takes(*this, output).run();
  } catch (const Error& error) {
    if (error.parts().where.find(request_.path) != std::string::npos) throw;
    throw located(error, request_.path);
  } catch (const std::exception& error) {  // bad_alloc for one huge frame: it costs its own rows
    throw Error({.what = error_text(error), .where = request_.path});
  }
}

VideoStream::Piece VideoStream::next(std::chrono::milliseconds patience) {
  if (end_) {
    Piece end = std::move(*end_);
    end_.reset();
    return end;
  }
  const auto is_enough = [this] {
    std::int64_t units = 0;
    for (const Pixels& part : parts_) units += part.units();
    return std::ssize(parts_) >= at_once_ || units >= encoder_.units_at_once();
  };
  while (!is_enough()) {
    if (!pieces_.is_ready(patience)) return Waiting{};
    std::optional<Piece> piece = pieces_.next();
    if (!piece) throw Error({.what = "the video has no take left", .where = request_.path});
    if (std::holds_alternative<Pixels>(*piece)) {
      parts_.push_back(std::get<Pixels>(std::move(*piece)));
      continue;
    }
    if (parts_.empty()) return std::move(*piece);
    end_ = std::get<EndOfTake>(std::move(*piece));
    break;
  }
  return join_pixels(std::exchange(parts_, {}));
}

}  // namespace vlm::infer
