// What pictures and clips give a vision encoder.
//
//   picture, frames ─► Processor ─► Pixels ─► VisionLanguageModel::encode ─► features [ΣL, W]
//
// Only the family knows the form of the numbers: tiles [N, 3, S, S], or rows of patches [P, V] with
// a grid for each picture. Everybody else joins, stores and counts them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vlm {

// The patches of one picture, or of some frames of a clip: frames × height × width.
struct PatchGrid {
  std::int64_t frames = 1, height = 0, width = 0;
  std::int64_t patches() const { return frames * height * width; }
  bool operator==(const PatchGrid&) const = default;
};

struct Pixels {
  at::Tensor values;             // float32, the first dimension counts units; undefined: no media
  std::int64_t tokens = 0;       // rows of features that they become
  std::vector<PatchGrid> grids;  // of rows of patches, in their order; empty for tiles

  bool empty() const { return !values.defined(); }
  // What the work of the encoder is counted in: tiles, or patches.
  std::int64_t units() const { return empty() ? 0 : values.size(0); }
  std::int64_t bytes() const { return empty() ? 0 : static_cast<std::int64_t>(values.nbytes()); }
  // Of values and grids, for the keys of caches.
  std::string digest() const;
};

// In their order; those without media add nothing.
Pixels join_pixels(const std::vector<Pixels>& parts);

// The least that an encoder can take by itself: a tile each, or all patches of a picture (or of
// some frames), which see each other. They share the memory of the whole.
std::vector<Pixels> split_pixels(const Pixels& pixels);

}  // namespace vlm
