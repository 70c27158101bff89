// Decoded media: a picture (8-bit RGB, row-major, three bytes a pixel) and the frames of a clip.
// Decoded by data/, processed by vlm/image.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace vlm {

struct Image {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<std::uint8_t> pixels;  // [height, width, 3]
};

// A change of a picture that keeps its size, such as augmentation. Empty: none.
using PictureChange = std::function<Image(Image)>;

// Sampled frames of a clip, in the order they are shown.
struct VideoClip {
  std::vector<Image> frames;
  std::vector<double> times_s;  // of each frame, from the first frame of the file
  double duration_s = 0;        // of the whole file; below 0: unknown
  // Frames that were chosen, more than these where some were left out while decoding (duplicates,
  // damaged ones). 0: as many.
  std::int64_t chosen_frames = 0;
};

}  // namespace vlm
