// Frames → model input: resize, squash to the model's square, rescale, normalise.
//
//   frames, each [H, W, 3] u8 ─► VideoProcessor ─► pixel_values [F, 3, S, S] f32, one tile a frame
//
// The values are those of transformers' SmolVLMVideoProcessor (5.23), which always works on
// torchvision's back end (0.26): two resizes in 8 bits by LibTorch's own kernels, Lanczos replaced
// by bicubic with antialiasing, and normalisation fused with rescaling. Frames are never split into
// tiles. The reference pads the clips of a batch with black frames, which it drops again before the
// vision tower; here no padding is needed. do_convert_rgb has no effect: an Image is RGB.
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
#include "vlm/image/resample.h"
#include "vlm/image/transform.h"

namespace vlm {

// Defaults are those of the class; it has none for fps and max_frames.
struct VideoProcessorConfig {
  bool do_convert_rgb = true;
  bool do_resize = true;
  bool do_rescale = true;
  bool do_normalize = true;
  std::int64_t resample = 1;  // a Filter; 0 to 3
  double rescale_factor = 1.0 / 255.0;
  std::vector<double> image_mean = {0.5, 0.5, 0.5};
  std::vector<double> image_std = {0.5, 0.5, 0.5};
  std::int64_t size_longest_edge = 4 * 364;  // 0: size_height × size_width instead
  std::int64_t size_height = 0;
  std::int64_t size_width = 0;
  std::int64_t max_image_size_longest_edge = 364;  // S
  FrameSampling sampling;

  // Reads processor_config.json's "video_processor" where it has one, else
  // video_preprocessor_config.json, else preprocessor_config.json, as transformers does; with none
  // of them "image_processor". Where a file has both "size" and "video_sampling", "size" wins over
  // "video_size": so the reference has it. Throws Error naming the file and key for values that
  // can't work.
  static VideoProcessorConfig load(const std::filesystem::path& folder);

  // The same from the parsed object; `where` names it in errors.
  static VideoProcessorConfig parse(const Json& object, const std::string& where);

  // Every value that a frame's tile depends on, as text. For the keys of caches.
  std::string describe() const;
};

// A frame resized as torchvision resizes bytes: nearest, bilinear or bicubic with antialiasing.
Image resize_frame(const Image& frame, std::int64_t height, std::int64_t width, Filter filter);

// changed_picture for a frame.
Image changed_frame(const Image& frame, const PixelSize& size, Filter filter,
                    const PictureChange& change);

class VideoProcessor {
 public:
  explicit VideoProcessor(VideoProcessorConfig config);

  // Frames may differ in size. A clip may be given in pieces: a frame's values depend on nothing
  // but the frame. `change` is applied once to each frame, where it has fewer pixels: after the
  // first resize if that makes it smaller, else before it. Thread safe. Throws Error for filters
  // that torchvision can't resize with (box, Hamming), and for a frame of another size than S × S
  // when do_resize is off.
  at::Tensor process(const std::vector<Image>& frames,
                     const PictureChange& change = {}) const;  // [F, 3, S, S]

  const VideoProcessorConfig& config() const { return config_; }

 private:
  VideoProcessorConfig config_;
  PixelTable table_;
};

}  // namespace vlm
