// Two-hour clips whose frames carry their own number as 4 × 4 black and white fields.
#include <cstdio>

#include "data/video/video_file.h"
#include "tests/video/clips.h"

namespace vlm::data {
namespace {

constexpr std::int64_t kWidth = 64, kHeight = 32;
constexpr std::int64_t kFrames = 2 * 3600 * 4;  // at 4 frames a second

// Pixel (x, y) lies in the field of one bit of the number.
int bit_at(std::int64_t x, std::int64_t y) {
  return static_cast<int>(y / (kHeight / 4) * 4 + x / (kWidth / 4));
}

std::string draw_number(std::int64_t number) {
  std::string pixels(static_cast<std::size_t>(kWidth * kHeight), '\x10');
  for (std::int64_t y = 0; y < kHeight; ++y) {
    for (std::int64_t x = 0; x < kWidth; ++x) {
      if (number >> bit_at(x, y) & 1) pixels[static_cast<std::size_t>(y * kWidth + x)] = '\xeb';
    }
  }
  return pixels;
}

std::int64_t read_number(const Image& image) {
  std::int64_t number = 0;
  for (std::int64_t y = kHeight / 8; y < kHeight; y += kHeight / 4) {
    for (std::int64_t x = kWidth / 8; x < kWidth; x += kWidth / 4) {
      const bool is_set = image.pixels[static_cast<std::size_t>((y * kWidth + x) * 3)] > 127;
      number |= static_cast<std::int64_t>(is_set) << bit_at(x, y);
    }
  }
  return number;
}

void make_long_clip(const ScratchFolder& scratch, const std::string& options) {
  const std::string command = "cd '" + scratch.path().string() + "' && " + kFfmpeg +
                              "-f rawvideo -pix_fmt gray -video_size 64x32 -framerate 4 -i - " +
                              options;
  std::FILE* pipe = ::popen(command.c_str(), "w");
  REQUIRE(pipe);
  for (std::int64_t i = 0; i < kFrames; ++i) {
    const std::string pixels = draw_number(i);
    REQUIRE(std::fwrite(pixels.data(), 1, pixels.size(), pipe) == pixels.size());
  }
  REQUIRE(::pclose(pipe) == 0);
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
    CHECK(file.frame_times()[kFrames - 1] == Approx((kFrames - 1) / 4.0).epsilon(1e-9));
  }
}

TEST_CASE("times of a two-hour clip of variable rate are right to the frame") {
  const ScratchFolder scratch;
  make_long_clip(
      scratch,
      "-vf settb=1/1000,setpts='(N+0.4*mod(N\\,3))*250' -fps_mode vfr -enc_time_base 1/1000 "
      "-c:v libx264 -preset ultrafast -bf 2 -g 240 -pix_fmt yuv420p a.mp4");
  VideoFile file(scratch.at("a.mp4"));
  check_numbers(file, 64);
  for (std::int64_t i = 0; i < kFrames; i += 1000) {
    const double expected = (static_cast<double>(i) + 0.4 * static_cast<double>(i % 3)) / 4;
    CHECK(file.frame_times()[static_cast<std::size_t>(i)] == Approx(expected).epsilon(1e-9));
  }
}

}  // namespace
}  // namespace vlm::data
