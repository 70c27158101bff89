#include "vlm/image/video_processor.h"

#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/_upsample_nearest_exact2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/image/resample.h"

namespace vlm {
namespace {

constexpr std::int64_t kMaxFrameEdge = 4096;  // the reference's MAX_IMAGE_SIZE

PixelScale video_scale_of(const VideoProcessorConfig& config) {
  return {.do_rescale = config.do_rescale,
          .do_normalize = config.do_normalize,
          .rescale_factor = config.rescale_factor,
          .mean = config.image_mean,
          .std = config.image_std};
}

// The short edge is made even by rounding up; nothing caps it afterwards.
PixelSize first_size(const VideoProcessorConfig& config, const PixelSize& frame) {
  if (!config.do_resize) return frame;
  if (config.size_longest_edge == 0) return {config.size_height, config.size_width};
  const std::int64_t longest = std::min(kMaxFrameEdge, config.size_longest_edge);
  const double aspect = static_cast<double>(frame.width) / static_cast<double>(frame.height);
  const auto edge = static_cast<double>(longest);
  PixelSize size{longest, longest};
  if (frame.width >= frame.height) {
    size.height = static_cast<std::int64_t>(edge / aspect);
    size.height += size.height % 2;
  } else {
    size.width = static_cast<std::int64_t>(edge * aspect);
    size.width += size.width % 2;
  }
  return {std::max<std::int64_t>(size.height, 1), std::max<std::int64_t>(size.width, 1)};
}

// uint8 [1, 3, h, w] → the size asked for.
at::Tensor resized(const at::Tensor& frame, const PixelSize& size, Filter filter) {
  if (frame.size(2) == size.height && frame.size(3) == size.width) return frame;
  const std::vector<std::int64_t> sizes = {size.height, size.width};
  const bool corners = false;
  switch (filter) {
    case Filter::kNearest:
      return at::_upsample_nearest_exact2d(frame, sizes);
    case Filter::kBilinear:
      return at::_upsample_bilinear2d_aa(frame, sizes, corners);
    default:  // bicubic, and Lanczos, which torchvision 0.26 has none of
      return at::_upsample_bicubic2d_aa(frame, sizes, corners);
  }
}

// A view of the image's bytes as [1, 3, H, W], channels last.
at::Tensor to_tensor(const Image& image) {
  TORCH_CHECK(image.height > 0 && image.width > 0 &&
                  static_cast<std::int64_t>(image.pixels.size()) == image.height * image.width * 3,
              "an Image needs height * width * 3 bytes");
  auto* bytes = const_cast<std::uint8_t*>(image.pixels.data());  // only read
  return at::from_blob(bytes, {1, image.height, image.width, 3}, at::kByte).permute({0, 3, 1, 2});
}

Image to_image(const at::Tensor& frame) {
  const at::Tensor bytes = frame.permute({0, 2, 3, 1}).contiguous();  // [1, H, W, 3]
  const auto* begin = bytes.data_ptr<std::uint8_t>();
  return {bytes.size(1), bytes.size(2), std::vector<std::uint8_t>(begin, begin + bytes.numel())};
}

void check_video_filter(Filter filter) {
  if (filter != Filter::kBox && filter != Filter::kHamming) return;
  throw Error({.what = "filter can't be used for video",
               .where = "resample",
               .got = concat(static_cast<std::int64_t>(filter)),
               .wanted = "0 nearest, 1 Lanczos, 2 bilinear or 3 bicubic"});
}

void check_size(const at::Tensor& frame, std::int64_t side) {
  if (frame.size(2) == side && frame.size(3) == side) return;
  throw Error({.what = "frame doesn't have the model's size",
               .got = concat(frame.size(2), " × ", frame.size(3), " pixels"),
               .wanted = concat(side, " × ", side),
               .hint = "do_resize in the checkpoint's video processor config scales frames"});
}

}  // namespace

Image resize_frame(const Image& frame, std::int64_t height, std::int64_t width, Filter filter) {
  check_video_filter(filter);
  return to_image(resized(to_tensor(frame), {height, width}, filter));
}

Image changed_frame(const Image& frame, const PixelSize& size, Filter filter,
                    const PictureChange& change) {
  const bool shrinks = size.height * size.width < frame.height * frame.width;
  return change(shrinks ? resize_frame(frame, size.height, size.width, filter) : frame);
}

VideoProcessor::VideoProcessor(VideoProcessorConfig config)
    : config_(std::move(config)), table_(make_fused_table(video_scale_of(config_))) {}

at::Tensor VideoProcessor::process(const std::vector<Image>& frames,
                                   const PictureChange& change) const {
  const auto filter = static_cast<Filter>(config_.resample);
  if (config_.do_resize) check_video_filter(filter);
  const std::int64_t side = config_.max_image_size_longest_edge;
  const auto count = static_cast<std::int64_t>(frames.size());
  at::Tensor values = at::empty({count, 3, side, side}, at::kFloat);  // [F, 3, S, S]
  auto* out = values.data_ptr<float>();
  for (const Image& image : frames) {
    const PixelSize first = first_size(config_, {image.height, image.width});
    Image changed_storage;
    if (change) changed_storage = changed_frame(image, first, filter, change);
    at::Tensor frame = to_tensor(change ? changed_storage : image);
    if (config_.do_resize) {
      frame = resized(frame, first, filter);
      frame = resized(frame, {side, side}, filter);
    }
    check_size(frame, side);
    write_window(to_image(frame), {0, 0, side}, table_, out);
    out += 3 * side * side;
  }
  return values;
}

}  // namespace vlm
