// Damages real clips at random and reads them: mutate_videos COUNT SEED FILE…
//
// Bits flipped, stretches overwritten, cut out, doubled, spliced in from another file, the end cut
// off; half of the damage in the first 4 KiB, where headers are. Each damaged clip either gives
// frames or an Error, within the time limit; anything else ends the program, and the line that it
// printed before names the case. Meant for the asan preset, which adds memory errors and leaks.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "data/video/video_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace {

using vlm::data::VideoFile;

constexpr double kMaxSeconds = 20;
constexpr std::size_t kHeadBytes = 4096;

struct Clip {
  std::string name, bytes;
};

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t bound) { return bound > 0 ? random_() % bound : 0; }

  std::string mutate(std::string bytes, const std::string& other) {
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) change(bytes, other);
    return bytes;
  }

 private:
  std::size_t place(const std::string& bytes) {
    return below(below(2) == 0 ? std::min(bytes.size(), kHeadBytes) : bytes.size());
  }

  void flip_bits(std::string& bytes) {
    if (bytes.empty()) return;
    for (std::size_t flips = 1 + below(32); flips > 0; --flips) {
      bytes[place(bytes)] ^= static_cast<char>(1 << below(8));
    }
  }

  void change(std::string& bytes, const std::string& other) {
    const std::size_t at = place(bytes);
    const std::size_t length = 1 + below(below(2) == 0 ? 8 : 4096);
    switch (below(7)) {
      case 0:
        return flip_bits(bytes);
      case 1:
        return flip_bits(bytes);
      case 2:
        bytes.replace(at, length, length, below(2) == 0 ? '\xff' : '\0');
        return;
      case 3:
        bytes.erase(at, length);
        return;
      case 4:
        bytes.insert(at, bytes.substr(at, length));
        return;
      case 5:
        bytes.replace(at, length, other.substr(below(other.size()), length));
        return;
      default:
        bytes.resize(below(bytes.size() + 1));
        return;
    }
  }

  std::mt19937_64 random_;
};

struct Counts {
  std::int64_t readable = 0, refused = 0, frames = 0;
};

// At most 20 frames, spread over the clip.
void read_some(const std::string& path, Counts& counts) {
  try {
    VideoFile file(path, {.max_pixels = 1 << 22, .max_frames = 100'000, .max_seconds = 5});
    const std::int64_t count = file.info().frame_count;
    const std::int64_t step = std::max<std::int64_t>(1, count / 20);
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < count; i += step) indices.push_back(i);
    const auto count_frame = [&](const vlm::data::VideoFrame& frame) {
      const auto size = static_cast<std::size_t>(frame.image.height * frame.image.width * 3);
      if (frame.image.pixels.size() != size) std::abort();
      return ++counts.frames > 0;
    };
    file.read_frames(indices, count_frame, 64);
    ++counts.readable;
  } catch (const vlm::Error&) {
    ++counts.refused;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: mutate_videos COUNT SEED FILE...\n");
    return 2;
  }
  vlm::set_log_level(vlm::LogLevel::kOff);
  const std::int64_t count = std::atoll(argv[1]), seed = std::atoll(argv[2]);
  std::vector<Clip> clips;
  for (int i = 3; i < argc; ++i) clips.push_back({argv[i], read_bytes(argv[i])});
  const std::string path = "/tmp/mutate_videos_" + std::to_string(::getpid());
  Counts counts;
  double slowest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    Mutator mutator(static_cast<std::uint64_t>(seed + i));
    const Clip& clip = clips[static_cast<std::size_t>(i) % clips.size()];
    std::ofstream(path, std::ios::binary)
        << mutator.mutate(clip.bytes, clips[mutator.below(clips.size())].bytes);
    std::fprintf(stderr, "%s, seed %ld\n", clip.name.c_str(), static_cast<long>(seed + i));
    const auto start = std::chrono::steady_clock::now();
    read_some(path, counts);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    slowest = std::max(slowest, spent.count());
    if (spent.count() > kMaxSeconds) {
      std::fprintf(stderr, "took %.1f s; kept as %s\n", spent.count(), path.c_str());
      return 1;
    }
  }
  ::unlink(path.c_str());
  std::printf(
      "%ld damaged clips: %ld gave frames (%ld), %ld were refused; the slowest took %.1f s\n",
      static_cast<long>(count), static_cast<long>(counts.readable),
      static_cast<long>(counts.frames), static_cast<long>(counts.refused), slowest);
  return 0;
}
