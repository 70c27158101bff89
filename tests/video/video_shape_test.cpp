#include <array>

#include "data/video/video_file.h"
#include "tests/video/clips.h"

namespace vlm::data {
namespace {

// Digests of frames as read, or their shapes where those are asked for.
std::vector<std::string> read_digests(VideoFile& file, const std::vector<std::int64_t>& indices,
                                      std::int64_t long_edge = 0) {
  std::vector<std::string> digests;
  const auto keep = [&](const VideoFrame& frame) {
    digests.push_back(digest_of(frame.image));
    return true;
  };
  file.read_frames(indices, keep, long_edge);
  return digests;
}

std::string big_endian(std::int32_t value) {
  const auto bits = static_cast<std::uint32_t>(value);
  std::string bytes;
  for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(bits >> shift);
  return bytes;
}

// An MP4's bytes with another display matrix in its track header.
std::string with_matrix(std::string bytes, const std::array<int, 4>& turn) {
  constexpr std::int32_t kOne = 1 << 16;
  const auto header = bytes.find("tkhd");
  REQUIRE(header != bytes.npos);
  std::string matrix;
  for (const int value : {turn[0], turn[1], 0, turn[2], turn[3], 0, 0, 0}) {
    matrix += big_endian(value * kOne);
  }
  return bytes.replace(header + 44, matrix.size(), matrix);
}

TEST_CASE("turned and mirrored clips come upright") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 24 -pix_fmt yuv444p a.mp4"), scratch.path());
  const std::string bytes = read_file(scratch.at("a.mp4"));
  const std::vector<std::array<int, 4>> turns = {{1, 0, 0, 1},   {-1, 0, 0, 1}, {-1, 0, 0, -1},
                                                 {1, 0, 0, -1},  {0, 1, 1, 0},  {0, 1, -1, 0},
                                                 {0, -1, -1, 0}, {0, -1, 1, 0}};
  for (const auto& turn : turns) {
    INFO(turn[0] << ' ' << turn[1] << ' ' << turn[2] << ' ' << turn[3]);
    VideoFile file(scratch.write("b.mp4", with_matrix(bytes, turn)));
    const bool is_upright = turn[0] != 0;
    CHECK(file.info().width == (is_upright ? 128 : 96));
    CHECK(file.info().height == (is_upright ? 96 : 128));
    const ClipFrames expected = decode_all(scratch.at("b.mp4"));  // ffmpeg turns, too
    CHECK(read_digests(file, {0, 50}) == std::vector{expected.digests[0], expected.digests[50]});
  }
}

TEST_CASE("pixels are made square before a clip is turned") {
  const ScratchFolder scratch;
  run_tool(encode("-vf setsar=4/3 -c:v libx264 -t 0.2 a.mp4"), scratch.path());
  VideoFile file(
      scratch.write("b.mp4", with_matrix(read_file(scratch.at("a.mp4")), {0, 1, -1, 0})));
  CHECK(file.info().width == 96);
  CHECK(file.info().height == 171);
  file.read_frames({0}, [](const VideoFrame& frame) {
    CHECK(frame.image.width == 96);
    CHECK(frame.image.height == 171);
    return true;
  });
}

TEST_CASE("frames may be read smaller, never larger") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 24 a.mp4"), scratch.path());
  VideoFile file(scratch.at("a.mp4"));
  const ClipFrames small =
      decode_all(scratch.at("a.mp4"), "scale=64:48:flags=bicubic+accurate_rnd");
  CHECK(read_digests(file, {3, 60}, 64) == std::vector{small.digests[3], small.digests[60]});
  const ClipFrames whole = decode_all(scratch.at("a.mp4"));
  CHECK(read_digests(file, {3}, 1000) == std::vector{whole.digests[3]});
  CHECK(read_digests(file, {3}, 128) == std::vector{whole.digests[3]});
}

TEST_CASE("a pass may end early, and others follow in any order") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 10 a.mp4"), scratch.path());
  const ClipFrames expected = decode_all(scratch.at("a.mp4"));
  VideoFile file(scratch.at("a.mp4"));
  std::vector<std::int64_t> seen;
  const std::int64_t count = file.read_frames({5, 6, 40, 70}, [&](const VideoFrame& frame) {
    seen.push_back(frame.index);
    return frame.index < 40;
  });
  CHECK(count == 3);
  CHECK(seen == std::vector<std::int64_t>{5, 6, 40});
  for (const std::int64_t index : {41, 39, 0, 74, 1, 12, 11, 10, 9}) {
    INFO(index);
    CHECK(read_digests(file, {index}) ==
          std::vector{expected.digests[static_cast<std::size_t>(index)]});
  }
}

TEST_CASE("what a file says of itself") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 24 a.mp4") + " && " + kFfmpeg + "-i a.mp4 -c copy a.mkv && " +
               encode("-vf settb=1/1000,setpts='if(lt(N\\,40)\\,N/25\\,N/5)/TB' -fps_mode vfr "
                      "-enc_time_base 1/1000 -c:v libx264 -g 24 variable.mp4") +
               " && " + encode("-frames:v 1 -c:v libx264 one.mp4"),
           scratch.path());
  const VideoInfo mp4 = VideoFile(scratch.at("a.mp4")).info();
  CHECK(mp4.frame_count == 75);
  CHECK(mp4.container_frame_count == 75);
  CHECK(mp4.fps == 25);
  CHECK(mp4.duration_s == 3);
  CHECK(mp4.width == 128);
  CHECK(mp4.height == 96);
  CHECK(mp4.constant_rate);
  CHECK_FALSE(mp4.truncated);
  CHECK(mp4.codec == "h264");
  CHECK(mp4.container == "mov,mp4,m4a,3gp,3g2,mj2");
  const VideoInfo mkv = VideoFile(scratch.at("a.mkv")).info();
  CHECK(mkv.frame_count == 75);
  CHECK(mkv.container_frame_count == 0);
  CHECK(mkv.fps == 25);
  CHECK(mkv.container == "matroska,webm");
  const VideoFile variable(scratch.at("variable.mp4"));
  CHECK_FALSE(variable.info().constant_rate);
  CHECK(variable.frame_times()[39] == Approx(1.56));
  CHECK(variable.frame_times()[74] == Approx(14.8));
  const VideoFile one(scratch.at("one.mp4"));
  CHECK(one.info().frame_count == 1);
  CHECK(one.frame_times() == std::vector<double>{0});
  CHECK(one.info().duration_s == Approx(0.04));
}

TEST_CASE("suffixes of videos, in either case") {
  for (const char* name : {"a.mp4", "b/c.MOV", "d.Mkv", "e.webm", "f.avi", "g.tar.ts", "-h.mpg"}) {
    CHECK(has_video_suffix(name));
  }
  for (const char* name : {"a", ".mp4", "mp4", "a.txt", "b.mp4.part", "c.gif", "d.mp3", "e.m3u8"}) {
    CHECK_FALSE(has_video_suffix(name));
  }
}

}  // namespace
}  // namespace vlm::data
