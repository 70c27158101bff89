#include "data/video/scene_frames.h"

#include <algorithm>

#include "data/opencv/image_view.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

constexpr int kCells = 32;                   // along each side
constexpr double kNoise = 8;                 // of 255, in one cell
constexpr std::int64_t kLookedAtEdge = 128;  // pixels are enough for the means

// Frames by index: [from, to).
struct Span {
  std::int64_t from = 0, to = 0;
};

cv::Range cell_range(int cell, int size) {
  const int from = cell * size / kCells;
  return {from, std::max(from + 1, (cell + 1) * size / kCells)};
}

// Mean colours of 32 × 32 parts; of a smaller picture parts overlap.
cv::Mat means_of(const Image& image) {
  const cv::Mat pixels = view(image);
  cv::Mat means(kCells, kCells, CV_32FC3);
  for (int y = 0; y < kCells; ++y) {
    for (int x = 0; x < kCells; ++x) {
      const cv::Scalar mean =
          cv::mean(pixels(cell_range(y, pixels.rows), cell_range(x, pixels.cols)));
      means.at<cv::Vec3f>(y, x) = cv::Vec3d(mean[0], mean[1], mean[2]);
    }
  }
  return means;
}

double mean_difference(const cv::Mat& a, const cv::Mat& b) {
  return cv::norm(a, b, cv::NORM_L1) / static_cast<double>(a.total() * 3);
}

// Frames of the part of the clip, by index: [from, to).
Span find_part(const VideoFile& file, const SceneOptions& options) {
  const std::vector<double>& times = file.frame_times();
  const auto from = std::lower_bound(times.begin(), times.end(), options.start_s);
  const auto to =
      options.end_s > 0 ? std::upper_bound(from, times.end(), options.end_s) : times.end();
  if (options.budget < 1 || from == to) {
    throw Error({.what = "no frames to choose scenes from",
                 .got = concat("a budget of ", options.budget, " from ", options.start_s, " s to ",
                               options.end_s, " s")});
  }
  return {from - times.begin(), to - times.begin()};
}

// `count` of the values, evenly spread, the first among them.
std::vector<std::int64_t> spread(const std::vector<std::int64_t>& values, std::int64_t count) {
  const auto size = static_cast<std::int64_t>(values.size());
  if (size <= count) return values;
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < count; ++i) {
    chosen.push_back(values[static_cast<std::size_t>(i * size / count)]);
  }
  return chosen;
}

std::vector<std::int64_t> choose_looked_at(const VideoFile& file, const SceneOptions& options) {
  const Span part = find_part(file, options);
  const std::int64_t count = std::max(options.max_looked_at, options.budget);
  std::vector<std::int64_t> all;
  for (std::int64_t i = part.from; i < part.to; ++i) all.push_back(i);
  if (part.to - part.from <= count) return all;
  std::vector<std::int64_t> keys = {part.from};
  for (const std::int64_t key : file.key_frames()) {
    if (key > part.from && key < part.to) keys.push_back(key);
  }
  const bool enough = static_cast<std::int64_t>(keys.size()) >= 4 * options.budget;
  return spread(enough ? keys : all, count);
}

struct Change {
  double size = 0;
  std::int64_t index = 0;
};

// The heap's top is the change to drop first: the smallest, of equal ones the latest.
bool outranks(const Change& a, const Change& b) {
  return a.size != b.size ? a.size > b.size : a.index < b.index;
}

}  // namespace

std::vector<std::int64_t> choose_scene_frames(VideoFile& file, const SceneOptions& options) {
  const std::vector<std::int64_t> looked_at = choose_looked_at(file, options);
  std::vector<Change> heap;
  cv::Mat before;
  bool is_first = true;
  std::vector<std::int64_t> chosen;
  const auto look = [&](VideoFrame frame) {
    const cv::Mat means = means_of(frame.image);
    if (is_first) {
      chosen.push_back(frame.index);
    } else if (const double size = mean_difference(before, means); size > 0) {
      heap.push_back({size, frame.index});
      std::push_heap(heap.begin(), heap.end(), outranks);
    }
    if (static_cast<std::int64_t>(heap.size()) >= options.budget) {
      std::pop_heap(heap.begin(), heap.end(), outranks);
      heap.pop_back();
    }
    before = means;
    is_first = false;
    return true;
  };
  file.read_frames(looked_at, look, kLookedAtEdge);
  for (const Change& change : heap) chosen.push_back(change.index);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

double picture_change(const Image& a, const Image& b) {
  return mean_difference(means_of(a), means_of(b));
}

bool is_near_duplicate(const Image& a, const Image& b) {
  if (a.height != b.height || a.width != b.width) return false;
  return cv::norm(means_of(a), means_of(b), cv::NORM_INF) <= kNoise;
}

}  // namespace vlm::data
