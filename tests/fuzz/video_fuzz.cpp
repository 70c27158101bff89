// Bytes → a clip of small frames: an Error, or frames of the size that they claim.
//
// libav* has fuzzers of its own; what is looked for here is how data/video uses it. A corpus is
// what the ffmpeg program makes: scripts/mutate_videos --keep FOLDER leaves one.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "data/video/video_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vlm::set_log_level(vlm::LogLevel::kOff);
  const int file = ::memfd_create("clip", 0);
  if (file < 0 || ::write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
  try {
    vlm::data::VideoFile video(
        "/proc/self/fd/" + std::to_string(file),
        {.max_pixels = 1 << 18, .max_frames = 1000, .max_seconds = 5, .threads = 1});
    const std::int64_t middle = video.info().frame_count / 2;
    const auto check = [](const vlm::data::VideoFrame& frame) {
      const auto bytes = static_cast<std::size_t>(frame.image.height * frame.image.width * 3);
      if (frame.image.pixels.size() != bytes) std::abort();
      return true;
    };
    video.read_frames({middle}, check);
  } catch (const vlm::Error&) {
  }
  ::close(file);
  return 0;
}
