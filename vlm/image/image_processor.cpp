#include "vlm/image/image_processor.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

constexpr std::int64_t kMaxLongestEdge = 4096;       // the reference's MAX_IMAGE_SIZE
constexpr std::int64_t kMaxTiledPixels = 1LL << 28;  // 3 GiB as float32

// `picture` with its long edge at `longest`. The quotients are the reference's: double precision,
// cut off towards zero.
PixelSize scale_to(const PixelSize& picture, std::int64_t longest) {
  const double aspect = static_cast<double>(picture.width) / static_cast<double>(picture.height);
  const auto edge = static_cast<double>(longest);
  if (picture.width >= picture.height) return {static_cast<std::int64_t>(edge / aspect), longest};
  return {longest, static_cast<std::int64_t>(edge * aspect)};
}

PixelSize at_least_one(const PixelSize& size) {
  return {std::max<std::int64_t>(size.height, 1), std::max<std::int64_t>(size.width, 1)};
}

// The short edge is made even, but not again after the cap: so the reference has it.
PixelSize first_size(const ImageProcessorConfig& config, const PixelSize& picture) {
  if (!config.do_resize) return picture;
  if (config.size_longest_edge == 0) return {config.size_height, config.size_width};
  PixelSize size = scale_to(picture, config.size_longest_edge);
  if (picture.width >= picture.height) {
    size.height += size.height % 2;
  } else {
    size.width += size.width % 2;
  }
  size = at_least_one(size);
  if (std::max(size.height, size.width) <= kMaxLongestEdge) return size;
  return at_least_one(scale_to(size, kMaxLongestEdge));
}

std::int64_t round_up(std::int64_t edge, std::int64_t tile) {
  return (edge + tile - 1) / tile * tile;
}

PixelSize whole_tiles(const PixelSize& size, std::int64_t tile) {
  const std::int64_t longest = round_up(std::max(size.height, size.width), tile);
  const PixelSize scaled = at_least_one(scale_to(size, longest));  // the reference fails at 0
  return {round_up(scaled.height, tile), round_up(scaled.width, tile)};
}

PixelScale scale_of(const ImageProcessorConfig& config) {
  return {.do_rescale = config.do_rescale,
          .do_normalize = config.do_normalize,
          .rescale_factor = config.rescale_factor,
          .mean = config.image_mean,
          .std = config.image_std};
}

// `image` itself where it has the size already, otherwise resized into `storage`.
const Image& resized_to(const Image& image, const PixelSize& size, Filter filter, Image& storage) {
  if (image.height == size.height && image.width == size.width) return image;
  storage = resize(image, size.height, size.width, filter);
  return storage;
}

}  // namespace

Image changed_picture(const Image& image, const PixelSize& size, Filter filter,
                      const PictureChange& change) {
  const bool shrinks = size.height * size.width < image.height * image.width;
  return change(shrinks ? resize(image, size.height, size.width, filter) : image);
}

TilePlan plan_tiles(const ImageProcessorConfig& config, const PixelSize& picture) {
  const std::int64_t tile = config.max_image_size_longest_edge;
  TilePlan plan;
  plan.resized = first_size(config, picture);
  plan.tiled = {tile, tile};
  if (!config.do_image_splitting) return plan;
  plan.tiled = whole_tiles(plan.resized, tile);
  if (plan.tiled.height > kMaxTiledPixels / plan.tiled.width) {
    throw Error({.what = "picture is too long to be split into tiles",
                 .got = concat(picture.height, " × ", picture.width, " pixels, ", plan.tiled.height,
                               " × ", plan.tiled.width, " as tiles"),
                 .wanted = concat("at most ", kMaxTiledPixels, " pixels as tiles"),
                 .hint = "do_resize bounds the size"});
  }
  if (plan.tiled.height > tile || plan.tiled.width > tile) {
    plan.rows = plan.tiled.height / tile;
    plan.cols = plan.tiled.width / tile;
  }
  return plan;
}

ImageProcessor::ImageProcessor(ImageProcessorConfig config)
    : config_(std::move(config)), table_(make_table_in_steps(scale_of(config_))) {}

TilePlan ImageProcessor::plan(const PixelSize& picture, bool is_whole) const {
  if (!is_whole) return plan_tiles(config_, picture);
  ImageProcessorConfig config = config_;
  config.do_image_splitting = false;
  return plan_tiles(config, picture);
}

ProcessedImage ImageProcessor::process(const Image& image, bool is_whole,
                                       const PictureChange& change) const {
  TORCH_CHECK(image.height > 0 && image.width > 0 &&
                  static_cast<std::int64_t>(image.pixels.size()) == image.height * image.width * 3,
              "an Image needs height * width * 3 bytes");
  const TilePlan plan = this->plan({image.height, image.width}, is_whole);
  const auto filter = static_cast<Filter>(config_.resample);
  const std::int64_t side = config_.max_image_size_longest_edge;
  Image changed_storage;
  if (change) changed_storage = changed_picture(image, plan.resized, filter, change);
  Image first_storage;
  Image tiled_storage;
  const Image& first =
      resized_to(change ? changed_storage : image, plan.resized, filter, first_storage);
  const Image& tiled = resized_to(first, plan.tiled, filter, tiled_storage);

  const std::int64_t tiles = plan.rows * plan.cols;
  const std::int64_t count = tiles == 0 ? 1 : tiles + 1;
  at::Tensor values = at::empty({count, 3, side, side}, at::kFloat);  // [N, 3, S, S]
  auto* out = values.data_ptr<float>();
  for (std::int64_t i = 0; i < tiles; ++i, out += 3 * side * side) {
    write_window(tiled, {i / plan.cols * side, i % plan.cols * side, side}, table_, out);
  }
  Image global_storage;
  const Image& global = resized_to(tiled, {side, side}, filter, global_storage);
  write_window(global, {0, 0, side}, table_, out);
  return {values, plan.rows, plan.cols};
}

}  // namespace vlm
