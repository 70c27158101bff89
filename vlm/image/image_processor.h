// Image → tiles: resize, split, add the global image, rescale, normalise.
//
//   Image [H, W, 3] u8 ─► ImageProcessor ─► pixel_values [N, 3, S, S] f32, rows × cols of tiles
//
// The values are those of transformers' SmolVLMImageProcessorPil / Idefics3ImageProcessorPil
// (5.23), bit for bit for the same decoded pixels. do_pad has no effect here: every pixel of a tile
// is real, so there is no pixel mask, and collator and batch runner join the tiles of a batch.
// do_convert_rgb has no effect either, because an Image is RGB.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/image/image.h"
#include "vlm/image/resample.h"
#include "vlm/image/transform.h"

namespace vlm {

// preprocessor_config.json (or the image_processor part of processor_config.json); defaults are the
// class's own.
struct ImageProcessorConfig {
  bool do_convert_rgb = true;
  bool do_resize = true;
  bool do_image_splitting = true;
  bool do_rescale = true;
  bool do_normalize = true;
  bool do_pad = true;
  std::int64_t resample = 1;  // a Filter
  double rescale_factor = 1.0 / 255.0;
  std::vector<double> image_mean = {0.5, 0.5, 0.5};
  std::vector<double> image_std = {0.5, 0.5, 0.5};
  std::int64_t size_longest_edge = 4 * 364;  // 0: size_height × size_width instead
  std::int64_t size_height = 0;
  std::int64_t size_width = 0;
  std::int64_t max_image_size_longest_edge = 364;  // S, the edge of a tile

  // Reads processor_config.json's "image_processor" where it has one (what transformers 5 saves),
  // preprocessor_config.json otherwise. Throws Error naming the file and key for values that can't
  // work (a zero size, an unknown filter, another family's image processor).
  static ImageProcessorConfig load(const std::filesystem::path& folder);

  // The same from the parsed object; `where` names it in errors.
  static ImageProcessorConfig parse(const Json& object, const std::string& where);
};

struct PixelSize {
  std::int64_t height = 0;
  std::int64_t width = 0;
};

// The sizes that a picture of a given size goes through.
struct TilePlan {
  PixelSize resized;  // after the first resize
  PixelSize tiled;    // after the second: rows · S × cols · S, or S × S where rows = cols = 0
  std::int64_t rows = 0;  // 0 when the picture is not split
  std::int64_t cols = 0;
};

// Throws Error for a picture so long that its tiles would not fit in memory, which can only happen
// with do_resize off.
TilePlan plan_tiles(const ImageProcessorConfig& config, const PixelSize& picture);

// The tiles of one picture. rows = cols = 0 and N = 1 when it was not split; otherwise N = rows ·
// cols + 1, tiles row by row, the global image last.
struct ProcessedImage {
  at::Tensor pixel_values;  // [N, 3, S, S] float32
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

// `change` applied where the picture has fewer pixels: after resizing to `size` if that makes it
// smaller, else before. The result still has to be resized where its size differs.
Image changed_picture(const Image& image, const PixelSize& size, Filter filter,
                      const PictureChange& change);

class ImageProcessor {
 public:
  explicit ImageProcessor(ImageProcessorConfig config);

  // Thread safe. Throw Error as plan_tiles does. `is_whole`: not split, whatever the config says.
  // `change` is applied once, where the picture has fewer pixels: after the first resize if that
  // makes it smaller, else before it.
  ProcessedImage process(const Image& image, bool is_whole = false,
                         const PictureChange& change = {}) const;
  TilePlan plan(const PixelSize& picture, bool is_whole = false) const;

  const ImageProcessorConfig& config() const { return config_; }

 private:
  ImageProcessorConfig config_;
  PixelTable table_;
};

}  // namespace vlm
