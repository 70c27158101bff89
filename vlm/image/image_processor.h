// Image → tiles: resize, split, add the global image, rescale, normalise.
//
//   Image [H, W, 3] u8 ─► ImageProcessor ─► pixel_values [N, 3, S, S] f32, rows × cols of tiles
//
// The values are those of transformers' SmolVLMImageProcessorPil / Idefics3ImageProcessorPil
// (5.23), bit for bit for the same decoded pixels. Padding to the richest sample of a batch is the
// collator's and the batch runner's work: a tile that holds a picture is valid everywhere, so no
// pixel mask leaves this class.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "vlm/core/fields.h"
#include "vlm/image/image.h"

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
  std::int64_t resample = 1;  // Pillow's numbers: 1 LANCZOS, 2 BILINEAR, 3 BICUBIC, 0 NEAREST
  double rescale_factor = 1.0 / 255.0;
  std::vector<double> image_mean = {0.5, 0.5, 0.5};
  std::vector<double> image_std = {0.5, 0.5, 0.5};
  std::int64_t size_longest_edge = 4 * 364;
  std::int64_t max_image_size_longest_edge = 364;

  // Throws Error naming the file and key for values that can't work (a zero size, an unknown
  // filter).
  static ImageProcessorConfig load(const std::filesystem::path& folder);
};

// What one picture becomes. rows = cols = 0 when it was not split: then N = 1, otherwise N = rows ·
// cols + 1, tiles row-major, the global image last.
struct ProcessedImage {
  at::Tensor pixel_values;  // [N, 3, S, S] float32
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

class ImageProcessor {
 public:
  explicit ImageProcessor(ImageProcessorConfig config);

  ProcessedImage process(const Image& image) const;

  const ImageProcessorConfig& config() const { return config_; }

 private:
  ImageProcessorConfig config_;
};

}  // namespace vlm
