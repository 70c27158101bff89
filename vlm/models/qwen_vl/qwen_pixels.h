// Pictures and frames → rows of patches for the encoders of Qwen-VL.
//
//   Image [H, W, 3] u8 ─► QwenPictures ─► Pixels: rows [P, V] f32, grid 1 × h × w
//   frames             ─► QwenFrames   ─► Pixels: rows [P, V] f32, grid t × h × w
//
// Sizes are the nearest multiples of a token's side within limits of pixels, so the shape of a
// picture stays nearly as it is. Patches are written block by block (merge × merge), a patch as
// channel, frame, row, column. Values are those of transformers' Qwen2VLImageProcessorPil for
// pictures, and of its video processors, which only exist on torchvision, for frames (5.23).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/image/frame_sampling.h"
#include "vlm/image/image.h"
#include "vlm/image/image_processor.h"
#include "vlm/models/interface/pixels.h"

namespace vlm {

// What config files of both kinds of processors hold. `size` there counts pixels, not edges.
struct QwenPixelConfig {
  bool do_resize = true;
  PixelScale scale;
  std::int64_t resample = 3;  // a Filter
  std::int64_t min_pixels = 56 * 56, max_pixels = 28 * 28 * 1280;
  std::int64_t patch_size = 14;
  std::int64_t temporal_patch_size = 2;
  std::int64_t merge_size = 2;

  std::int64_t side() const { return patch_size * merge_size; }  // of a token, in pixels
  // Every value that pixels depend on, as text. For the keys of caches.
  std::string describe() const;
};

// The size that a picture is resized to. Throws Error for one that is more than 200 times as long
// as it is wide, or too small for a token.
PixelSize fit_pixels(const QwenPixelConfig& config, const PixelSize& picture);

class QwenPictures {
 public:
  // Reads the folder's image processor config. Throws Error naming file and key.
  explicit QwenPictures(const std::filesystem::path& folder);

  PatchGrid grid_of(const PixelSize& picture) const;
  // `change` is applied once, where the picture has fewer pixels. Thread-safe.
  Pixels process(const Image& image, const PictureChange& change = {}) const;
  const QwenPixelConfig& config() const { return config_; }

 private:
  PixelSize size_of(const PixelSize& picture) const;

  QwenPixelConfig config_;
  PixelTable table_;
};

class QwenFrames {
 public:
  // `counts_frames`: the limits are of a clip's pixels, not of a frame's (Qwen3-VL).
  QwenFrames(const std::filesystem::path& folder, bool counts_frames);

  // Of `frames` shown frames; an odd last one is shown twice. `clip_frames`: how many were chosen,
  // which sizes follow (ClipShape::chosen_frames).
  PatchGrid grid_of(const PixelSize& frame, std::int64_t frames, std::int64_t clip_frames) const;
  // Some frames of a clip, of which `clip_frames` were chosen. Thread-safe.
  Pixels process(const std::vector<Image>& frames, std::int64_t clip_frames,
                 const PictureChange& change = {}) const;
  const QwenPixelConfig& config() const { return config_; }
  const FrameSampling& sampling() const { return sampling_; }

 private:
  PixelSize size_of(const PixelSize& frame, std::int64_t clip_frames) const;

  QwenPixelConfig config_;
  FrameSampling sampling_;
  bool counts_frames_;
  PixelTable table_;
};

}  // namespace vlm
