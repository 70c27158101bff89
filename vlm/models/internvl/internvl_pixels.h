// Pictures and frames → square tiles for InternViT.
//
//   Image [H, W, 3] u8 ─► InternVlPictures ─► [N, 3, S, S] f32, tiles row by row, the whole last
//   frames             ─► InternVlFrames   ─► [F, 3, S, S] f32, one tile a frame
//
// A picture is resized to the grid of tiles whose shape is nearest to its own and cut; where the
// grid has more than one, the whole picture as one tile follows. Values are those of transformers'
// GotOcr2ImageProcessorPil for pictures, and of InternVLVideoProcessor, which only exists on
// torchvision, for frames (5.23). Those of the original layout's published example (Pillow, and
// torchvision's ToTensor and Normalize) are the same as the former, for frames too.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/image/frame_sampling.h"
#include "vlm/image/image.h"
#include "vlm/image/image_processor.h"

namespace vlm {

// What config files of both kinds of processors hold, with the classes' defaults.
struct InternVlTileConfig {
  std::int64_t side = 384;  // S
  PixelScale scale = {.mean = {0.48145466, 0.4578275, 0.40821073},
                      .std = {0.26862954, 0.26130258, 0.27577711}};
  std::int64_t resample = 3;                       // a Filter
  std::int64_t min_patches = 1, max_patches = 12;  // tiles of a picture without the whole one
  bool has_whole = true;                           // behind the tiles, where there are several

  // Every value that pixels depend on, as text. For the keys of caches.
  std::string describe() const;
};

struct TileGrid {
  std::int64_t rows = 1, cols = 1;
  std::int64_t tiles() const { return rows * cols; }
  bool operator==(const TileGrid&) const = default;
};

// The grid whose ratio is nearest to the picture's; of equal ones that of most tiles which cover
// less than twice the picture's area.
TileGrid choose_grid(const InternVlTileConfig& config, const PixelSize& picture);

// Throws Error naming `where` and these names of the keys for limits out of range.
void check_tile_limits(const InternVlTileConfig& config, const std::string& where,
                       const std::string& min_key, const std::string& max_key);

class InternVlPictures {
 public:
  // Reads the folder's image processor config. Throws Error naming file and key.
  explicit InternVlPictures(const std::filesystem::path& folder);
  explicit InternVlPictures(InternVlTileConfig config);

  // `is_whole`: one tile, whatever the config says.
  TileGrid grid_of(const PixelSize& picture, bool is_whole) const;
  // With the whole picture, where that follows.
  std::int64_t count_tiles(const TileGrid& grid) const;
  // `change` is applied once, where the picture has fewer pixels. Thread-safe.
  at::Tensor process(const Image& image, bool is_whole, const PictureChange& change = {}) const;
  const InternVlTileConfig& config() const { return config_; }

 private:
  InternVlTileConfig config_;
  PixelTable table_;
};

class InternVlFrames {
 public:
  explicit InternVlFrames(const std::filesystem::path& folder);

  // `change` is applied once to each frame, where it has fewer pixels. Thread-safe.
  at::Tensor process(const std::vector<Image>& frames, const PictureChange& change = {}) const;
  const InternVlTileConfig& config() const { return config_; }
  const FrameSampling& sampling() const { return sampling_; }

 private:
  InternVlTileConfig config_;
  FrameSampling sampling_;
  PixelTable table_;
};

}  // namespace vlm
