// Videos on their way to the model: piece by piece, out of the cache, mixed with pictures, by
// segment.
#include "infer/media/shown_media.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "infer/search/choices.h"
#include "infer/session.h"
#include "tests/infer/sessions.h"
#include "tests/support/failing_processor.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/thrown.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// 30 frames at 10 frames a second.
std::string clip(const std::string& name) {
  return (fs::path(VLM_SOURCE_DIR) / "examples/clips" / name).string();
}

Image picture() {
  return data::load_picture({.name = fixture("pictures/square.png")});
}

Session open_with_cache(const std::string& cache = "") {
  Session session = open_fixture(kTinyModel);
  if (!cache.empty()) {
    session.generator->set_feature_cache(std::make_shared<FeatureCache>(cache, 1 << 30));
  }
  return session;
}

// What one video becomes.
struct Shown {
  at::Tensor features;
  std::string text;
  WatchedVideo seen;
};

Shown show(Session& session, const std::string& path, const data::VideoSampling& sampling = {}) {
  ShownMedia media(session.generator->processor(), session.generator->encoder());
  media.add(VideoRequest{path, {sampling}});
  const bool is_read = session.generator->read(media);  // may throw, which REQUIRE doesn't let out
  REQUIRE(is_read);
  CHECK_FALSE(media.has_more());
  return {media.features()->features, media.processed().texts.at(0).text, media.seen().at(0)};
}

// The same without streams: all frames decoded, then all encoded.
ProcessedMedium process(const Session& session, const std::string& path,
                        const data::VideoSampling& sampling = {}) {
  const Processor& processor = session.generator->processor();
  return processor.process_video(data::load_clip(path, sampling, processor.frame_sampling()));
}

at::Tensor encode(const Session& session, const Pixels& pixels) {
  const c10::InferenceMode inference;
  return session.model->encode(pixels);
}

TEST_CASE("a video in pieces has the features and the text of one in a whole") {
  Session session = open_with_cache();
  for (const std::int64_t at_once : {1, 3, 64}) {
    INFO(at_once << " frames at once");
    session.model->units_at_once = at_once;
    const data::VideoSampling sampling{.fps = 4};
    const Shown shown = show(session, clip("left.mp4"), sampling);
    const ProcessedMedium whole = process(session, clip("left.mp4"), sampling);
    CHECK(shown.seen.times_s.size() == 12);
    CHECK(shown.seen.duration_s == 3);
    CHECK(shown.text == whole.text.text);
    check_close(shown.features, encode(session, whole.pixels), 1e-5);
  }
}

TEST_CASE("pictures and videos keep their order, whatever it is") {
  Session session = open_with_cache();
  const Processor& processor = session.generator->processor();
  ShownMedia media(processor, session.generator->encoder());
  media.add(VideoRequest{clip("up.mp4"), {}});
  media.add(picture());
  media.add(VideoRequest{clip("down.mp4"), {}});
  REQUIRE(session.generator->read(media));
  CHECK(media.seen().size() == 2);
  const std::vector<ProcessedMedium> parts = {process(session, clip("up.mp4")),
                                              processor.process_picture(picture()),
                                              process(session, clip("down.mp4"))};
  const ProcessedMedia whole = join_media(parts);
  check_close(media.features()->features, encode(session, whole.pixels), 1e-5);
  const std::vector<Message> messages = {{.role = "user",
                                          .content = {{.type = "video"},
                                                      {.type = "image"},
                                                      {.type = "video"},
                                                      {.type = "text", .text = "Which?"}}}};
  CHECK(processor.encode_prompt(messages, media.processed()).ids ==
        processor.encode_prompt(messages, whole).ids);
}

TEST_CASE("features of a video come from the cache by content, sampling and weights") {
  const ScratchFolder scratch;
  const std::string file = scratch.at("a.mp4");
  fs::copy_file(clip("left.mp4"), file);
  Session first = open_with_cache(scratch.at("cache"));
  const Shown made = show(first, file, {.drop_duplicates = true});
  CHECK(first.generator->encoder().decoded_videos() == 1);

  Session second = open_with_cache(scratch.at("cache"));
  PictureEncoder& encoder = second.generator->encoder();
  fs::rename(file, scratch.at("b.mov"));  // the name doesn't count
  const Shown found = show(second, scratch.at("b.mov"), {.drop_duplicates = true});
  CHECK(encoder.decoded_videos() == 0);
  CHECK(encoder.cached_videos() == 1);
  CHECK(at::equal(found.features, made.features));
  CHECK(found.text == made.text);
  CHECK(found.seen.times_s == made.seen.times_s);
  CHECK(found.seen.duration_s == made.seen.duration_s);
  CHECK(found.seen.dropped_duplicates == made.seen.dropped_duplicates);

  show(second, scratch.at("b.mov"), {.max_frames = 2});  // another sampling
  CHECK(encoder.decoded_videos() == 1);
  show(second, clip("right.mp4"), {.drop_duplicates = true});  // another content
  CHECK(encoder.decoded_videos() == 2);
  Session odd = open_session({.model = fixture("smolvlm_odd").string()}, {.device = "cpu"});
  odd.generator->set_feature_cache(std::make_shared<FeatureCache>(scratch.at("cache"), 1 << 30));
  show(odd, scratch.at("b.mov"), {.drop_duplicates = true});  // other weights
  CHECK(odd.generator->encoder().cached_videos() == 0);
}

TEST_CASE("the segments of a video are what asking for each part gives") {
  const ScratchFolder scratch;
  Session session = open_with_cache(scratch.at("cache"));
  const Processor& processor = session.generator->processor();
  for (const bool is_cached : {false, true}) {
    ShownMedia media(processor, session.generator->encoder());
    media.add(VideoRequest{clip("left.mp4"), {{.fps = 5}, 1.0}});
    std::vector<TimeSegment> segments;
    do {
      REQUIRE(session.generator->read(media));
      segments.push_back(media.segment());
      const ProcessedMedium part =
          process(session, clip("left.mp4"),
                  {.fps = 5, .start_s = segments.back().start_s, .end_s = segments.back().end_s});
      CHECK(media.processed().texts.at(0).text == part.text.text);
      check_close(media.features()->features, encode(session, part.pixels), 1e-5);
    } while (media.has_more());
    REQUIRE(segments.size() == 3);
    CHECK(segments[2].start_s == 2);
    CHECK(segments[2].end_s == 3);
    CHECK(session.generator->encoder().decoded_videos() == 3);
    CHECK(session.generator->encoder().cached_videos() == (is_cached ? 3 : 0));
  }
}

TEST_CASE("what is wrong with a video is told with its name, and nothing hangs") {
  const ScratchFolder scratch;
  Session session = open_with_cache();
  CHECK_THROWS_WITH(show(session, "/nowhere.mp4"), Contains("/nowhere.mp4"));
  const std::string broken = scratch.write("broken.mp4", "no video at all");
  CHECK_THROWS_WITH(show(session, broken), Contains("broken.mp4"));
  CHECK_THROWS_WITH(show(session, clip("left.mp4"), {.start_s = 7}), Contains("left.mp4"));
  for (int i = 0; i < 3; ++i) {  // nobody takes the frames
    ShownMedia media(session.generator->processor(), session.generator->encoder());
    media.add(VideoRequest{clip("left.mp4"), {{.fps = 10}}});
  }
}

TEST_CASE("a range is cut into segments, and a short rest is no segment of its own") {
  const auto cut = [](double start_s, double end_s, double segment_s) {
    std::string text;
    for (const TimeSegment& one : split_range({start_s, end_s}, segment_s)) {
      text += std::to_string(one.start_s).substr(0, 4) + "-" +
              std::to_string(one.end_s).substr(0, 4) + " ";
    }
    return text;
  };
  CHECK(cut(0, 3, 1) == "0.00-1.00 1.00-2.00 2.00-3.00 ");
  CHECK(cut(0, 2.4, 1) == "0.00-1.00 1.00-2.40 ");
  CHECK(cut(0, 2.6, 1) == "0.00-1.00 1.00-2.00 2.00-2.60 ");
  CHECK(cut(1, 1.2, 1) == "1.00-1.20 ");
  CHECK_THROWS_WITH(split_range({0, 1e6}, 0.5), Contains("--segment-s: too many segments"));
}

TEST_CASE("segments are ranked by the answer's probability, equal ones by time") {
  const auto score = [](double start_s, std::vector<double> logprobs) {
    std::vector<ChoiceScore> scores;
    for (const double logprob : logprobs) scores.push_back({.logprob = logprob, .tokens = 2});
    return score_segment({start_s, start_s + 1}, scores, false);
  };
  std::vector<SegmentScore> segments = {score(0, {-3, -1}), score(1, {-9, -9}), score(2, {-1, -3}),
                                        score(3, {-2, -2})};
  rank_segments(segments);
  CHECK(segments[0].start_s == 2);
  CHECK(segments[1].start_s == 1);
  CHECK(segments[2].start_s == 3);
  CHECK(segments[3].start_s == 0);
  CHECK(segments[1].probability == 0.5);
  CHECK(segments[1].logprob == -9);
  const SegmentScore alone = score_segment({}, {{.logprob = -2, .tokens = 4}}, true);
  CHECK(alone.logprob == -0.5);
  CHECK(alone.probability == std::exp(-0.5));
}

constexpr std::chrono::seconds kPatience(60);

// A stream of a clip whose frames meet `on_frames`.
struct HookedStream {
  Session session = open_with_cache();
  FailingProcessor processor;
  VideoStream stream;

  explicit HookedStream(std::function<void()> on_frames, const std::string& path = clip("up.mp4"))
      : processor(load_processor(fixture(kTinyModel)), {.on_frames = std::move(on_frames)}),
        stream({.path = path, .options = {.sampling = {.fps = 4}}}, processor,
               session.generator->encoder()) {}
};

TEST_CASE("whatever decoding throws, who takes the frames gets it, and again") {
  for (const auto& [text, fail] : kThrows) {
    for (const int at : {0, 1, 11}) {
      int calls = 0;
      HookedStream hooked([&, fail = fail] {
        if (calls++ == at) fail();
      });
      const auto take_all = [&] {
        while (!std::holds_alternative<EndOfTake>(hooked.stream.next(kPatience))) {
        }
      };
      const std::string told = thrown_by(take_all);
      CHECK_THAT(told, Contains(text == "7" ? "7" : "up.mp4: "));
      CHECK(thrown_by(take_all) == told);
    }
  }
}

TEST_CASE("a video that nobody wants any more can go at any moment") {
  for (int taken = 0; taken < 3; ++taken) {  // none, the frames, their end too
    std::atomic<int> inside = 0;
    {
      HookedStream hooked([&] {
        ++inside;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --inside;
      });
      for (int i = 0; i < taken; ++i) hooked.stream.next(kPatience);
    }
    CHECK(inside == 0);
  }
}

TEST_CASE("behind the last take of a video there is an error, not a wait") {
  HookedStream hooked([] {});
  while (!std::holds_alternative<EndOfTake>(hooked.stream.next(kPatience))) {
  }
  CHECK_THROWS_WITH(hooked.stream.next(kPatience), Contains("up.mp4: the video has no take left"));
}

}  // namespace
}  // namespace vlm::infer
