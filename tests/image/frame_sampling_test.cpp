// Which frames are taken: transformers' own answers (tests/fixtures/video), and what holds for any
// clip.
#include "vlm/image/frame_sampling.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

using Indices = std::vector<std::int64_t>;

// Frames at 0, 0.1, … but a pause of 5 s behind the tenth.
std::vector<double> times_with_pause() {
  std::vector<double> times;
  for (int i = 0; i < 20; ++i) times.push_back(0.1 * i + (i < 10 ? 0 : 5));
  return times;
}

TEST_CASE("indices and times equal transformers' for clips of constant rate") {
  const Json cases = load_json(fixture("video/sampling.json"));
  REQUIRE(cases.size() == 132);
  for (const Json& one : cases) {
    const Json about = {one["frame_count"], one["fps"], one["duration_s"], one["wanted_fps"],
                        one["max_frames"]};
    INFO(about.dump());
    const SampledFrames sampled =
        sample_frames({one["frame_count"], one["fps"], one["duration_s"]},
                      {.fps = one["wanted_fps"], .max_frames = one["max_frames"]});
    CHECK(sampled.indices == one["indices"].get<Indices>());
    CHECK(sampled.times_s.size() == sampled.indices.size());
    CHECK(sampled.times_s.back() == one["last_time_s"].get<double>());
  }
}

TEST_CASE("by presentation times a constant rate gives nearly the same frames") {
  // A frame may differ where the rule's time falls on a border between two frames.
  for (const double fps : {5.0, 25.0, 30000.0 / 1001}) {
    for (const std::int64_t count : {1, 2, 30, 299, 1650, 4000}) {
      const FrameRate clip{count, fps, static_cast<double>(count) / fps};
      const SampledFrames by_index = sample_frames(clip, {});
      const SampledFrames by_time =
          sample_frames_by_time(constant_frame_times(clip), clip.duration_s, {});
      INFO(fps << " " << count);
      REQUIRE(by_time.indices.size() == by_index.indices.size());
      for (std::size_t i = 0; i < by_time.indices.size(); ++i) {
        CHECK(std::abs(by_time.indices[i] - by_index.indices[i]) <= 1);
      }
    }
  }
}

TEST_CASE("by presentation times a pause is seen as long as it lasts") {
  // 7 frames over 6.9 s: at 0, 1.15, … of which five fall into the pause, on its one frame.
  const SampledFrames sampled = sample_frames_by_time(times_with_pause(), 7, {.fps = 1});
  CHECK(sampled.indices == Indices{0, 9, 19});
  CHECK(sampled.times_s == std::vector<double>{0, 0.1 * 9, 0.1 * 19 + 5});
}

TEST_CASE("by presentation times both ends of a long clip are skipped") {
  std::vector<double> times;
  for (int i = 0; i < 1000; ++i) times.push_back(i < 500 ? 0.1 * i : 50 + 0.2 * (i - 500));
  const SampledFrames sampled = sample_frames_by_time(times, 150, {.fps = 1, .max_frames = 3});
  CHECK(sampled.indices == Indices{10, 625, 995});
}

TEST_CASE("a window counts as a clip of its own, with the times of the whole") {
  const FrameRate clip{1000, 10, 100};
  const SampledFrames sampled = sample_frames(clip, {}, {.start_s = 20, .end_s = 23});
  CHECK(sampled.indices == Indices{200, 214, 229});
  CHECK(sampled.times_s == std::vector<double>{20, 21.4, 22.9});
  CHECK(sample_frames(clip, {.max_frames = 2}, {.start_s = 99}).indices == Indices{990});
  CHECK(sample_frames(clip, {}, {.end_s = 0.01}).indices == Indices{0});
  CHECK(sample_frames(clip, {}, {.start_s = 98, .end_s = 1000}).indices == Indices{980, 999});
  // A start between two frames takes the one on display.
  CHECK(sample_frames(clip, {}, {.start_s = 5.05, .end_s = 5.3}).indices == Indices{50});
  const SampledFrames by_time =
      sample_frames_by_time(times_with_pause(), 7, {}, {.start_s = 0.5, .end_s = 5.5});
  CHECK(by_time.indices == Indices{5, 6, 7, 8, 9});
}

TEST_CASE("uniform sampling takes the middles of equal parts") {
  const std::vector<double> times = constant_frame_times({12, 4, 3});
  CHECK(sample_uniformly(times, 3, 1).indices == Indices{6});
  CHECK(sample_uniformly(times, 3, 3).indices == Indices{2, 6, 10});
  CHECK(sample_uniformly(times, 3, 3).times_s == std::vector<double>{0.5, 1.5, 2.5});
  CHECK(sample_uniformly(times, 3, 100).indices.size() == 12);
  CHECK(sample_uniformly(times, 3, 2, {.start_s = 1, .end_s = 2}).indices == Indices{5, 7});
}

TEST_CASE("the middles of equal parts are InternVL's, by number and by rate") {
  // InternVLVideoProcessor.sample_frames, transformers 5.23.
  const auto indices = [](std::int64_t frames, std::int64_t wanted) {
    const FrameSampling sampling{
        .rule = FrameSampling::Rule::kMiddles, .max_frames = wanted, .min_frames = wanted};
    return sample_frames({frames, 4, static_cast<double>(frames) / 4}, sampling).indices;
  };
  using Indices = std::vector<std::int64_t>;
  CHECK(indices(10, 3) == Indices{1, 5, 8});
  CHECK(indices(31, 8) == Indices{1, 5, 9, 13, 17, 21, 25, 29});
  CHECK(indices(100, 7) == Indices{7, 21, 35, 50, 64, 78, 92});
  CHECK(indices(16, 8) == Indices{1, 3, 5, 7, 9, 11, 13, 15});
  CHECK(indices(3, 8) == Indices{0, 1, 2});  // the reference refuses
  const FrameSampling by_rate{.rule = FrameSampling::Rule::kMiddles, .fps = 0.5};
  CHECK(sample_frames({40, 4, 10}, by_rate).indices == Indices{4, 12, 20, 28, 36});
  const std::vector<double> times = constant_frame_times({40, 4, 10});
  CHECK(sample_frames_by_time(times, 10, by_rate).indices == Indices{4, 12, 20, 28, 36});
}

TEST_CASE("given times take the frames on display, in order and once") {
  const std::vector<double> times = times_with_pause();
  CHECK(sample_at_times(times, 7, {3, 0, 6.95, 0.25, 0.2, 4.5}).indices == Indices{0, 2, 9, 19});
  // A time that rounding has put a hair before its frame.
  CHECK(sample_at_times(times, 7, {0.3}).indices == Indices{3});
  CHECK_THROWS_WITH(sample_at_times(times, 7, {7.5}),
                    "time lies outside the clip: got 7.5 s, wanted 0 to 7 s");
  CHECK_THROWS_WITH(sample_at_times(times, 7, {-1}), Contains("got -1 s"));
  CHECK_THROWS_WITH(sample_at_times(times, 7, {}), "no times are given");
}

TEST_CASE("clips without frames and impossible windows are refused") {
  CHECK_THROWS_WITH(sample_frames({0, 10, 0}, {}), "clip has no frames");
  CHECK_THROWS_WITH(sample_uniformly({}, 0, 4), "clip has no frames");
  const FrameRate clip{100, 10, 10};
  CHECK_THROWS_WITH(sample_frames(clip, {}, {.start_s = 10}),
                    "time window lies behind the end of the clip: got 10 to the end s, wanted a "
                    "start before 10 s");
  CHECK_THROWS_WITH(sample_frames(clip, {}, {.start_s = 4, .end_s = 4}),
                    "empty time window: got 4 to 4 s, wanted 0 <= start < end");
  CHECK_THROWS_WITH(sample_frames(clip, {}, {.start_s = -1}), Contains("empty time window"));
  CHECK_THROWS_WITH(sample_frames_by_time(times_with_pause(), 7, {}, {.start_s = 7.5}),
                    Contains("behind the end of the clip"));
  CHECK_THROWS_WITH(sample_uniformly(times_with_pause(), 7, 2, {.start_s = 9}),
                    Contains("behind the end of the clip"));
}

}  // namespace
}  // namespace vlm
