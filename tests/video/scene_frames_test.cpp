#include "data/video/scene_frames.h"

#include "tests/video/clips.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// 10 frames each of colours, so that cuts are at 10, 20, 30, …
void make_scenes(const ScratchFolder& scratch, const std::string& name) {
  std::string inputs, labels;
  const std::vector<std::string> colors = {"black", "white", "red", "blue", "yellow", "gray"};
  for (std::size_t i = 0; i < colors.size(); ++i) {
    inputs += "-f lavfi -i color=" + colors[i] + ":size=96x64:rate=10:duration=1 ";
    labels += "[" + std::to_string(i) + "]";
  }
  run_tool(
      kFfmpeg + inputs + "-filter_complex '" + labels + "concat=n=6' -c:v libx264 -g 20 " + name,
      scratch.path());
}

TEST_CASE("scene frames are the first behind each cut, the largest first") {
  const ScratchFolder scratch;
  make_scenes(scratch, "a.mp4");
  VideoFile file(scratch.at("a.mp4"));
  CHECK(choose_scene_frames(file, {.budget = 6}) ==
        std::vector<std::int64_t>{0, 10, 20, 30, 40, 50});
  // black → white is the largest change, blue → yellow the next.
  CHECK(choose_scene_frames(file, {.budget = 2}) == std::vector<std::int64_t>{0, 10});
  CHECK(choose_scene_frames(file, {.budget = 3}) == std::vector<std::int64_t>{0, 10, 40});
  CHECK(choose_scene_frames(file, {.budget = 1}) == std::vector<std::int64_t>{0});
  CHECK(choose_scene_frames(file, {.budget = 2, .start_s = 1.5, .end_s = 3.5}) ==
        std::vector<std::int64_t>{15, 20});
}

TEST_CASE("of a long clip only some frames are looked at") {
  const ScratchFolder scratch;
  make_scenes(scratch, "a.mp4");
  VideoFile file(scratch.at("a.mp4"));
  CHECK(choose_scene_frames(file, {.budget = 6, .max_looked_at = 12}) ==
        std::vector<std::int64_t>{0, 10, 20, 30, 40, 50});
  CHECK(choose_scene_frames(file, {.budget = 3, .max_looked_at = 3}) ==
        std::vector<std::int64_t>{0, 20, 40});
}

TEST_CASE("scenes of nothing are refused") {
  const ScratchFolder scratch;
  make_scenes(scratch, "a.mp4");
  VideoFile file(scratch.at("a.mp4"));
  CHECK_THROWS_WITH(choose_scene_frames(file, {.budget = 0}),
                    "no frames to choose scenes from: got a budget of 0 from 0 s to 0 s");
  CHECK_THROWS_WITH(choose_scene_frames(file, {.budget = 4, .start_s = 9}),
                    "no frames to choose scenes from: got a budget of 4 from 9 s to 0 s");
}

Image plain(std::int64_t height, std::int64_t width, std::uint8_t value) {
  const auto size = static_cast<std::size_t>(height * width * 3);
  return {height, width, std::vector<std::uint8_t>(size, value)};
}

TEST_CASE("near-duplicates differ by noise, not by a small thing that moved") {
  const Image gray = plain(120, 160, 100);
  Image noisy = gray, moved = gray;
  for (std::size_t i = 0; i < noisy.pixels.size(); ++i) noisy.pixels[i] += i % 7;
  for (std::int64_t y = 40; y < 44; ++y) {
    for (std::int64_t x = 60; x < 66; ++x) {
      for (int c = 0; c < 3; ++c)
        moved.pixels[static_cast<std::size_t>((y * 160 + x) * 3 + c)] = 200;
    }
  }
  CHECK(is_near_duplicate(gray, gray));
  CHECK(is_near_duplicate(gray, noisy));
  CHECK_FALSE(is_near_duplicate(gray, moved));
  CHECK_FALSE(is_near_duplicate(gray, plain(120, 160, 112)));
  CHECK_FALSE(is_near_duplicate(gray, plain(160, 120, 100)));
  CHECK(is_near_duplicate(plain(4, 3, 7), plain(4, 3, 9)));  // fewer pixels than parts
  CHECK(picture_change(gray, plain(120, 160, 112)) == Approx(12));
  CHECK(picture_change(gray, gray) == 0);
}

}  // namespace
}  // namespace vlm::data
