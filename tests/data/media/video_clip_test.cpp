// Clips of real files: the frames chosen, their times, and what options and files can do wrong.
#include "data/media/video_clip.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

using Indices = std::vector<std::int64_t>;
using Times = std::vector<double>;

// 128 × 128, 30 frames at 10 frames a second, a shape that moves.
std::filesystem::path clip(const char* name = "left.mp4") {
  return std::filesystem::path(VLM_SOURCE_DIR) / "examples/clips" / name;
}

std::string sampling_error(const VideoSampling& sampling) {
  try {
    sampling.check("video_");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("a clip's frames are the model's choice, with the times of the file") {
  const Clip loaded = load_clip(clip(), {}, {.fps = 1, .max_frames = 16});
  CHECK(loaded.indices == Indices{0, 14, 29});
  CHECK(loaded.times_s == Times{0, 1.4, 2.9});
  CHECK(loaded.duration_s == 3);
  CHECK(loaded.fps == 10);
  CHECK(loaded.dropped_duplicates == 0);
  REQUIRE(loaded.frames.size() == 3);
  for (const Image& frame : loaded.frames) {
    CHECK(frame.height == 128);
    CHECK(frame.width == 128);
  }
  CHECK(loaded.frames[0].pixels != loaded.frames[2].pixels);
  // What is asked for wins over the checkpoint's settings.
  CHECK(load_clip(clip(), {.fps = 2, .max_frames = 5}, {}).indices == Indices{0, 7, 14, 21, 29});
}

TEST_CASE("strategies, windows and sizes") {
  CHECK(load_clip(clip(), {.strategy = "uniform", .max_frames = 3}, {}).indices ==
        Indices{5, 15, 25});
  CHECK(load_clip(clip(), {.strategy = "times", .times_s = {2.05, 0.5}}, {}).indices ==
        Indices{5, 20});
  const Clip part = load_clip(clip(), {.fps = 10, .start_s = 1, .end_s = 1.3}, {});
  CHECK(part.indices == Indices{10, 11, 12});
  CHECK(part.times_s == Times{1, 1.1, 1.2});
  CHECK(part.duration_s == 3);
  const Clip scenes = load_clip(clip(), {.strategy = "scene", .max_frames = 4}, {});
  CHECK(scenes.indices.size() == 4);
  CHECK(scenes.indices.front() == 0);
  CHECK(scenes.times_s.back() == static_cast<double>(scenes.indices.back()) / 10);
  CHECK(load_clip(clip(), {.frame_size = 32}, {}).frames[0].width == 32);
}

TEST_CASE("near-duplicates are left out where that is asked for") {
  const VideoSampling every = {.fps = 10, .drop_duplicates = true};
  const Clip moving = load_clip(clip(), every, {});
  CHECK(static_cast<std::int64_t>(moving.frames.size()) + moving.dropped_duplicates == 30);
  // One frame asked for through many times is one frame; two of a still part are one as well.
  const Clip same =
      load_clip(clip(), {.strategy = "times", .times_s = {1.0, 1.04}, .drop_duplicates = true}, {});
  CHECK(same.frames.size() == 1);
  CHECK(same.times_s.size() == 1);
}

TEST_CASE("frames can be taken one by one, and no more than are wanted") {
  ClipReader reader(clip(), {.fps = 5}, {});
  CHECK(reader.frames().indices.size() == 15);
  Times seen;
  reader.for_each_frame([&](VideoFrame frame) {
    seen.push_back(frame.time_s);
    return seen.size() < 4;
  });
  CHECK(seen == Times(reader.frames().times_s.begin(), reader.frames().times_s.begin() + 4));
}

TEST_CASE("files and windows that can't be used are refused by name") {
  const ScratchFolder scratch;
  CHECK_THROWS_WITH(load_clip(scratch.at("none.mp4"), {}, {}), Contains(scratch.at("none.mp4")));
  CHECK_THROWS_WITH(load_clip(clip(), {.start_s = 3}, {}),
                    clip().string() +
                        ": time window lies behind the end of the clip: got 3 to the end s, wanted "
                        "a start before 3 s");
  CHECK_THROWS_WITH(load_clip(clip(), {.strategy = "times", .times_s = {4}}, {}),
                    clip().string() + ": time lies outside the clip: got 4 s, wanted 0 to 3 s");
}

TEST_CASE("options out of range, or without effect, are refused by name") {
  CHECK(sampling_error({}).empty());
  CHECK(sampling_error({.strategy = "best"}) ==
        "video_strategy: value out of range: got 'best', wanted model, uniform, scene, times");
  CHECK(sampling_error({.fps = 0}) == "video_fps: value out of range: got 0, wanted more than 0");
  CHECK(sampling_error({.max_frames = 0}) ==
        "video_max_frames: value out of range: got 0, wanted 1 to 65536");
  CHECK(sampling_error({.frame_size = -1}) ==
        "video_frame_size: value out of range: got -1, wanted at least 0 pixels");
  CHECK(sampling_error({.strategy = "uniform", .fps = 2}) ==
        "video_fps: has no effect with strategy 'uniform'");
  CHECK(sampling_error({.strategy = "times", .max_frames = 2, .times_s = {1}}) ==
        "video_max_frames: has no effect with strategy 'times'");
  CHECK(sampling_error({.strategy = "times", .start_s = 2, .times_s = {1}}) ==
        "video_start and end: has no effect with strategy 'times'");
  CHECK(sampling_error({.times_s = {1}}) == "video_times: has no effect with strategy 'model'");
}

TEST_CASE("what the choice of frames depends on is told apart, family by family") {
  const FrameSampling smolvlm{.fps = 2, .max_frames = 8};
  FrameSampling other = smolvlm;
  other.rule = FrameSampling::Rule::kParts;
  const std::string plain = describe_sampling({}, smolvlm).dump();
  const std::string parts = describe_sampling({}, other).dump();
  CHECK(plain.find("rule") == std::string::npos);  // as caches and journals have had it
  CHECK(parts != plain);
  other.min_frames = 4;
  CHECK(describe_sampling({}, other).dump() != parts);
}

}  // namespace
}  // namespace vlm::data
