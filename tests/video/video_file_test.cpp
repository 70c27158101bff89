#include "data/video/video_file.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/video/clip_cases.h"
#include "tests/video/clips.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Containers keep times in units of up to a millisecond.
constexpr double kTimeError = 1e-5;

std::vector<std::int64_t> every(std::int64_t step, std::int64_t count, std::int64_t first = 0) {
  std::vector<std::int64_t> indices;
  for (std::int64_t i = first; i < count; i += step) indices.push_back(i);
  return indices;
}

// Where two files meet, packets of a transport stream are missing, as far as its counters tell.
bool is_joined(const std::filesystem::path& path) {
  return path.filename() == "h264_joined.ts";
}

// Frames of the pass that differ from the oracle's, as text.
std::string differences(VideoFile& file, const std::filesystem::path& where,
                        const std::vector<std::int64_t>& indices, const ClipFrames& expected,
                        double max_time_error) {
  std::string found;
  std::size_t at = 0;
  const auto compare = [&](VideoFrame frame) {
    const auto index = static_cast<std::size_t>(frame.index);
    if (frame.index != indices[at++]) found += " index " + std::to_string(frame.index);
    if (digest_of(frame.image) != expected.digests[index])
      found += " pixels of " + std::to_string(index);
    if (std::abs(frame.time_s - expected.times_s[index]) > max_time_error) {
      found += " time of " + std::to_string(index);
    }
    return true;
  };
  const std::int64_t count = file.read_frames(indices, compare);
  if (count != static_cast<std::int64_t>(indices.size())) found += " only " + std::to_string(count);
  if (const std::int64_t damaged = file.damaged_frames(); damaged > 0 && !is_joined(where)) {
    found += " damaged " + std::to_string(damaged);
  }
  return found;
}

// All frames, some of them, the last, and single ones of files opened anew.
void check_frames(const std::filesystem::path& path, const ClipFrames& expected,
                  double max_time_error) {
  VideoFile file(path);
  const auto count = static_cast<std::int64_t>(expected.digests.size());
  REQUIRE(file.info().frame_count == count);
  CHECK(differences(file, path, every(1, count), expected, max_time_error) == "");
  CHECK(differences(file, path, every(17, count, 5 % count), expected, max_time_error) == "");
  CHECK(differences(file, path, {count - 1}, expected, max_time_error) == "");
  for (const std::int64_t index : every(23, count)) {
    VideoFile fresh(path);
    CHECK(differences(fresh, path, {index}, expected, max_time_error) == "");
  }
}

TEST_CASE("frames of every kind of file equal a full forward decode") {
  for (const ClipCase& clip : clip_cases()) {
    DYNAMIC_SECTION(clip.file) {
      const ScratchFolder scratch;
      run_tool(clip.command, scratch.path());
      const auto path = scratch.path() / clip.file;
      check_frames(path, decode_all(path, clip.filter), clip.has_times ? kTimeError : 1e9);
    }
  }
}

// Files that can't be committed: scripts/make_data.py clips, then
//   VLM_CLIPS=.data/clips build/release/tests/tests_video "[real]" -s
TEST_CASE("frames of the files in VLM_CLIPS equal a full forward decode", "[.real]") {
  const char* folder = std::getenv("VLM_CLIPS");
  REQUIRE(folder != nullptr);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    DYNAMIC_SECTION(name) {
      const bool has_wide_pixels = name.starts_with("carphone");
      const bool has_times = name != "box.mp4";  // whose reordered frames have no offsets
      const std::string filter = has_wide_pixels ? "scale=193:144:flags=bicubic+accurate_rnd" : "";
      check_frames(entry.path(), decode_all(entry.path(), filter), has_times ? kTimeError : 0.1);
    }
  }
}

}  // namespace
}  // namespace vlm::data
