// Clips for tests, made by the ffmpeg program, and what that program reads from them.
//
//   arguments ─► ffmpeg ─► file;  file ─► decode_all ─► every frame's digest and time
//
// decode_all is the oracle: another program, decoding the file from its start to its end. Needs
// ffmpeg in PATH.
#pragma once

#include <cstdio>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/sha256.h"
#include "vlm/image/image.h"

// Runs a command in the folder; the test fails when it does.
inline std::string run_tool(const std::string& command, const std::filesystem::path& folder) {
  const ProgramResult result = run_shell(command, folder);
  INFO(command << "\n" << result.err);
  REQUIRE(result.code == 0);
  return result.out;
}

inline const std::string kFfmpeg = "ffmpeg -hide_banner -loglevel error -y -bitexact ";
// Moving shapes, colours and digits: 3 seconds, 75 frames.
inline const std::string kPicture = "-f lavfi -i testsrc2=size=128x96:rate=25:duration=3 ";

inline std::string encode(const std::string& options) {
  return kFfmpeg + kPicture + options;
}

// SHA-256 of a picture's [H, W, 3] bytes.
inline std::string digest_of(const vlm::Image& image) {
  return vlm::sha256_hex({reinterpret_cast<const char*>(image.pixels.data()), image.pixels.size()});
}

struct ClipFrames {
  std::vector<std::string> digests;
  std::vector<double> times_s;  // from the first frame's
};

// Every frame of the first video stream (no cover picture) as RGB, as ffmpeg decodes them from
// start to end. `filter` is applied to them.
inline ClipFrames decode_all(const std::filesystem::path& file, const std::string& filter = "") {
  std::istringstream lines(run_tool("ffmpeg -hide_banner -loglevel fatal -i '" + file.string() +
                                        "' -map 0:V:0 -fps_mode passthrough -enc_time_base -1 "
                                        "-sws_flags bilinear -pix_fmt rgb24" +
                                        (filter.empty() ? "" : " -vf '" + filter + "'") +
                                        " -f framehash -hash sha256 -",
                                    file.parent_path()));
  ClipFrames frames;
  double unit = 0, first = 0;
  for (std::string line; std::getline(lines, line);) {
    long numerator = 0, denominator = 1, time = 0;
    if (std::sscanf(line.c_str(), "#tb 0: %ld/%ld", &numerator, &denominator) == 2) {
      unit = static_cast<double>(numerator) / static_cast<double>(denominator);
    }
    if (std::sscanf(line.c_str(), "0, %*d, %ld,", &time) != 1) continue;
    if (frames.digests.empty()) first = static_cast<double>(time);
    frames.times_s.push_back((static_cast<double>(time) - first) * unit);
    frames.digests.push_back(line.substr(line.rfind(' ') + 1));
  }
  REQUIRE_FALSE(frames.digests.empty());
  return frames;
}
