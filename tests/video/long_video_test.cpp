// Two-hour clips whose frames carry their own number as 4 × 4 black and white fields.
#include <cstdio>

#include "data/video/video_file.h"
#include "tests/video/clips.h"

namespace vlm::data {
namespace {

constexpr std::int64_t kWidth = 64, kHeight = 32;
constexpr std::int64_t kFrames = 2 * 3600 * 2;  // at 2 frames a second

std::string draw_number(std::int64_t number) {
  std::string pixels;
  for (std::int64_t row = 0; row < 4; ++row) {
    std::string line;
    for (std::int64_t column = 0; column < 4; ++column) {
      const bool is_set = number >> (row * 4 + column) & 1;
      line.append(kWidth / 4, is_set ? '\xeb' : '\x10');
    }
    for (std::int64_t y = 0; y < kHeight / 4; ++y) pixels += line;
  }
  return pixels;
}

std::int64_t read_number(const Image& image) {
  std::int64_t number = 0;
  for (std::int64_t bit = 0; bit < 16; ++bit) {
    const std::int64_t y = kHeight / 8 + bit / 4 * (kHeight / 4);
    const std::int64_t x = kWidth / 8 + bit % 4 * (kWidth / 4);
    const bool is_set = image.pixels[static_cast<std::size_t>((y * kWidth + x) * 3)] > 127;
    number |= static_cast<std::int64_t>(is_set) << bit;
  }
  return number;
}

void make_long_clip(const ScratchFolder& scratch, const std::string& options) {
  const std::string command = "cd '" + scratch.path().string() + "' && " + kFfmpeg +
                              "-f rawvideo -pix_fmt gray -video_size 64x32 -framerate 2 -i - " +
                              options;
  std::FILE* pipe = ::popen(command.c_str(), "w");
  REQUIRE(pipe);
  bool is_written = true;
  for (std::int64_t i = 0; i < kFrames; ++i) {
    const std::string pixels = draw_number(i);
    is_written = is_written && std::fwrite(pixels.data(), 1, pixels.size(), pipe) == pixels.size();
  }
  REQUIRE(::pclose(pipe) == 0);
  REQUIRE(is_written);
}

void check_numbers(VideoFile& file, std::int64_t count) {
  REQUIRE(file.info().frame_count == kFrames);
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < count; ++i) indices.push_back(i * (kFrames - 1) / (count - 1));
  std::vector<std::int64_t> numbers;
  file.read_frames(indices, [&](const VideoFrame& frame) {
    numbers.push_back(read_number(frame.image));
    return true;
  });
  CHECK(numbers == indices);
}

TEST_CASE("frames of a two-hour clip are right to the frame") {
  const ScratchFolder scratch;
  make_long_clip(scratch, "-c:v libx264 -preset ultrafast -bf 2 -g 240 -pix_fmt yuv420p a.mp4");
  for (const char* name : {"a.mkv", "a.ts", "a.avi"}) {
    run_tool(kFfmpeg + "-i a.mp4 -c copy " + name, scratch.path());
  }
  for (const char* name : {"a.mp4", "a.mkv", "a.ts", "a.avi"}) {
    INFO(name);
    VideoFile file(scratch.at(name));
    check_numbers(file, 64);
    CHECK(file.frame_times()[kFrames - 1] == Approx((kFrames - 1) / 2.0).epsilon(1e-9));
  }
}

TEST_CASE("times of a two-hour clip of variable rate are right to the frame") {
  const ScratchFolder scratch;
  make_long_clip(
      scratch,
      "-vf settb=1/1000,setpts='(N+0.4*mod(N\\,3))*500' -fps_mode vfr -enc_time_base 1/1000 "
      "-c:v libx264 -preset ultrafast -bf 2 -g 240 -pix_fmt yuv420p a.mp4");
  VideoFile file(scratch.at("a.mp4"));
  check_numbers(file, 64);
  for (std::int64_t i = 0; i < kFrames; i += 1000) {
    const double expected = (static_cast<double>(i) + 0.4 * static_cast<double>(i % 3)) / 2;
    CHECK(file.frame_times()[static_cast<std::size_t>(i)] == Approx(expected).epsilon(1e-9));
  }
}

}  // namespace
}  // namespace vlm::data
