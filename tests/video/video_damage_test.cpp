// Frames that a decoder makes up in part aren't shown as if they were whole; intact ones are.
#include <algorithm>
#include <map>

#include "data/video/video_file.h"
#include "tests/video/clips.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::data {
namespace {

struct Shown {
  std::map<std::int64_t, std::string> digests;  // by index
  std::int64_t damaged = 0;
  std::string warnings;
};

Shown read_all(const std::string& path) {
  Shown shown;
  set_log_sink([&](LogLevel level, const std::string& text) {
    if (level == LogLevel::kWarning) shown.warnings += text + "\n";
  });
  VideoFile file(path);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(file.info().frame_count));
  for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<std::int64_t>(i);
  file.read_frames(indices, [&](VideoFrame frame) {
    shown.digests[frame.index] = digest_of(frame.image);
    return true;
  });
  shown.damaged = file.damaged_frames();
  set_log_sink({});
  return shown;
}

// A third of one frame's bytes are lost: frame 40 of 75, in groups of 25.
void damage(const std::string& path, const std::string& to) {
  const std::string report = run_tool(
      "ffprobe -v error -select_streams v -show_entries packet=pos,size,pts -of csv=p=0 '" + path +
          "' | sort -t, -k1,1n | sed -n 41p",
      std::filesystem::path(path).parent_path());
  long pts = 0, size = 0, place = 0;
  REQUIRE(std::sscanf(report.c_str(), "%ld,%ld,%ld", &pts, &size, &place) == 3);
  std::string bytes = read_file(path);
  const auto begin = static_cast<std::size_t>(place + size / 3);
  bytes.replace(begin, static_cast<std::size_t>(size / 3), static_cast<std::size_t>(size / 3),
                '\xff');
  std::ofstream(to, std::ios::binary) << bytes;
}

TEST_CASE("a damaged frame and what is predicted from it are left out or told of") {
  const ScratchFolder scratch;
  for (const std::string& options :
       {std::string("-c:v libx264 -g 25 -keyint_min 25 -bf 0 -sc_threshold 0"),
        std::string("-c:v mpeg4 -g 25"), std::string("-c:v libx264 -g 25 -bf 2 -sc_threshold 0"),
        std::string(
            "-c:v libx265 -x265-params log-level=0:hash=1:keyint=25:min-keyint=25:scenecut=0")}) {
    INFO(options);
    const std::string whole = scratch.at("whole.mkv"), broken = scratch.at("broken.mkv");
    run_tool(encode(options + " whole.mkv"), scratch.path());
    const Shown before = read_all(whole);
    CHECK(before.digests.size() == 75);
    CHECK(before.damaged == 0);
    CHECK(before.warnings.empty());

    damage(whole, broken);
    const Shown after = read_all(broken);
    std::int64_t wrong = 0;
    for (const auto& [index, digest] : after.digests) {
      wrong += digest != before.digests.at(index) ? 1 : 0;
    }
    const auto missing = static_cast<std::int64_t>(75 - after.digests.size());
    CHECK(missing + wrong > 0);
    CHECK(after.damaged >= missing + wrong);  // each is counted
    CHECK(after.damaged < 50);                // what comes before the group and behind it is whole
    CHECK_THAT(after.warnings, Contains("damaged"));
    for (std::int64_t i = 0; i < 75; ++i) {
      if (i >= 20 && i < 50) continue;
      INFO(i);
      REQUIRE(after.digests.count(i) == 1);
      CHECK(after.digests.at(i) == before.digests.at(i));
    }
  }
}

TEST_CASE("frames that the decoder itself calls made up are never shown") {
  const ScratchFolder scratch;
  const std::string whole = scratch.at("whole.mkv"), broken = scratch.at("broken.mkv");
  run_tool(encode("-c:v libx264 -g 25 -keyint_min 25 -bf 0 -sc_threshold 0 whole.mkv"),
           scratch.path());
  damage(whole, broken);
  const Shown before = read_all(whole), after = read_all(broken);
  for (const auto& [index, digest] : after.digests) {
    INFO(index);
    CHECK(digest == before.digests.at(index));
  }
  for (std::int64_t i = 40; i < 50; ++i) CHECK(after.digests.count(i) == 0);
  CHECK(after.digests.size() + 10 == 75);
  CHECK(after.damaged == 10);
  CHECK_THAT(after.warnings, Contains("broken.mkv: damaged frames are left out: 10, at 1.6, 1.64"));
  // A single one that is wanted is an error, not a made-up picture.
  VideoFile file(broken);
  CHECK_THROWS_WITH(file.read_frames({45}, [](const VideoFrame&) { return true; }),
                    broken +
                        ": truncated or corrupt video file: got none of the wanted frames is "
                        "whole");
  CHECK(file.read_frames({39, 50}, [](const VideoFrame&) { return true; }) == 2);
  CHECK(file.damaged_frames() == 0);
}

TEST_CASE("a clock that begins again within a clip isn't its end") {
  const ScratchFolder scratch;
  // 2^33 ticks of 90 kHz are 95443.7 s.
  struct Case {
    const char* file;
    const char* options;
    int rate, seconds;
  };
  for (const Case& one :
       {Case{"a.ts", "-c:v libx264 -g 12 -bf 2 -output_ts_offset 95442", 25, 3},
        Case{"b.ts", "-c:v mpeg2video -g 12 -output_ts_offset 95441.1", 25, 3},
        Case{"c.mpg", "-c:v mpeg2video -g 12 -bf 2 -output_ts_offset 95442", 25, 3},
        Case{"d.mpg", "-c:v mpeg2video -g 12 -output_ts_offset 90000", 25, 3},
        Case{"e.ts", "-c:v libx264 -g 50 -output_ts_offset 95350", 5, 150}}) {
    INFO(one.file);
    run_tool(kFfmpeg + "-f lavfi -i testsrc2=size=128x96:rate=" + std::to_string(one.rate) +
                 ":duration=" + std::to_string(one.seconds) + " " + one.options + " " + one.file,
             scratch.path());
    const Shown shown = read_all(scratch.at(one.file));
    CHECK(shown.warnings.empty());
    VideoFile file(scratch.at(one.file));
    CHECK_FALSE(file.info().truncated);
    CHECK(file.info().frame_count == one.rate * one.seconds);
    CHECK(file.info().constant_rate);
    CHECK(std::abs(file.frame_times().back() - (one.seconds - 1.0 / one.rate)) < 0.01);
    const ClipFrames expected = decode_all(scratch.at(one.file));
    REQUIRE(expected.digests.size() == shown.digests.size());
    for (const auto& [index, digest] : shown.digests) {
      INFO(index);
      CHECK(digest == expected.digests[static_cast<std::size_t>(index)]);
    }
    // In the second half, by jumps over the place where the clock begins again.
    const std::int64_t late = file.info().frame_count - 3;
    file.read_frames({1, late}, [&](VideoFrame frame) {
      CHECK(digest_of(frame.image) == expected.digests[static_cast<std::size_t>(frame.index)]);
      return true;
    });
  }
}

TEST_CASE("a clip that is cut is still told, wherever its clock begins") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 12 -bf 0 -output_ts_offset 100 a.mkv"), scratch.path());
  const std::string bytes = read_file(scratch.at("a.mkv"));
  scratch.write("cut.mkv", bytes.substr(0, bytes.size() / 2));
  const Shown shown = read_all(scratch.at("cut.mkv"));
  CHECK_THAT(shown.warnings, Contains("cut.mkv: the file is truncated"));
}

}  // namespace
}  // namespace vlm::data
