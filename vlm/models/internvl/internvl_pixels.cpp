#include "vlm/models/internvl/internvl_pixels.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/image/processor_values.h"
#include "vlm/image/video_processor.h"
#include "vlm/models/decoder/size_checks.h"
#include "vlm/models/internvl/internvl_config.h"

namespace vlm {
namespace {

constexpr std::int64_t kMostTileSide = 1 << 14;
constexpr std::int64_t kMostTilePixels = 1LL << 28;  // of a picture's tiles, 3 GiB as float32
constexpr std::int64_t kUsualFrames = 8;             // of the published examples

void check_type(const std::string& type, const std::string& prefix, const std::string& where) {
  if (type.empty() || type.starts_with(prefix)) return;
  throw Error({.what = "unsupported processor",
               .where = where,
               .got = concat("'", type, "'"),
               .wanted = prefix});
}

// {"height": n, "width": n}, or n.
void read_tile_side(const Json& size, std::int64_t& side, const std::string& where) {
  if (size.is_null()) return;
  SizeValue value;
  read_size(size.is_number() ? Json{{"height", size}, {"width", size}} : size, value, where);
  if (value.longest_edge != 0 || value.height != value.width) {
    throw Error({.what = "unsupported size",
                 .where = where,
                 .got = size.dump(),
                 .wanted = "equal height and width"});
  }
  side = value.height;
}

// Keys that both kinds of processors have.
void read_tiles(const Json& object, InternVlTileConfig& config, const std::string& where) {
  Json mean, std, size;
  bool do_resize = true;
  PixelScale& scale = config.scale;
  read_fields(object,
              {{"do_resize", &do_resize},
               {"do_rescale", &scale.do_rescale},
               {"do_normalize", &scale.do_normalize},
               {"resample", &config.resample},
               {"rescale_factor", &scale.rescale_factor},
               {"image_mean", &mean},
               {"image_std", &std},
               {"size", &size}},
              UnknownKeys::kIgnore, where);
  require_flag(do_resize, true, where + ": do_resize");
  read_tile_side(size, config.side, where + ": size");
  read_channels(mean, scale.mean, where + ": image_mean");
  read_channels(std, scale.std, where + ": image_std");
  check_filter(config.resample, where + ": resample");
  check_std(scale.std, where + ": image_std");
  require(config.side >= 1 && config.side <= kMostTileSide, where + ": size", "value out of range",
          config.side, concat("1 to ", kMostTileSide));
}

// crop_to_patches is not read: the processor's calls set it, whatever the file says.
void read_picture_limits(const Json& object, InternVlTileConfig& config, const std::string& where) {
  read_fields(object, {{"min_patches", &config.min_patches}, {"max_patches", &config.max_patches}},
              UnknownKeys::kIgnore, where);
  check_tile_limits(config, where, "min_patches", "max_patches");
}

// num_frames, else fps, else what the published examples ask for.
FrameSampling read_frames(const Json& object, const std::string& where) {
  FrameSampling sampling{.rule = FrameSampling::Rule::kMiddles,
                         .max_frames = kUsualFrames,
                         .skip_s = 0,
                         .min_frames = kUsualFrames};
  std::optional<std::int64_t> num_frames;
  std::optional<double> fps;
  Json shift;
  read_fields(object, {{"num_frames", &num_frames}, {"fps", &fps}, {"initial_shift", &shift}},
              UnknownKeys::kIgnore, where);
  if (!shift.is_null() && !shift.is_boolean()) {
    throw Error({.what = "unsupported value",
                 .where = where + ": initial_shift",
                 .got = shift.dump(),
                 .wanted = "true or false"});
  }
  if (shift == false) sampling.rule = FrameSampling::Rule::kParts;
  if (num_frames) {
    require(*num_frames >= 1, where + ": num_frames", "value out of range", *num_frames,
            "at least 1");
    sampling.min_frames = sampling.max_frames = *num_frames;
  } else if (fps) {
    if (!(*fps > 0)) {
      throw Error({.what = "value out of range",
                   .where = where + ": fps",
                   .got = concat(*fps),
                   .wanted = "more than 0"});
    }
    sampling.fps = *fps;
    sampling.min_frames = 1;
    sampling.max_frames = FrameSampling().max_frames;
  }
  return sampling;
}

}  // namespace

std::string InternVlTileConfig::describe() const {
  return Json({side, scale.do_rescale, scale.do_normalize, scale.rescale_factor, scale.mean,
               scale.std, resample, min_patches, max_patches, has_whole})
      .dump();
}

void check_tile_limits(const InternVlTileConfig& config, const std::string& where,
                       const std::string& min_key, const std::string& max_key) {
  const std::int64_t most =
      std::min<std::int64_t>(kMostTilePixels / (config.side * config.side), 1024);
  require(config.max_patches >= 1 && config.max_patches <= most, where + ": " + max_key,
          "value out of range", config.max_patches, concat("1 to ", most));
  require(config.min_patches >= 1 && config.min_patches <= config.max_patches,
          where + ": " + min_key, "value out of range", config.min_patches,
          concat("1 to ", max_key, " = ", config.max_patches));
}

TileGrid choose_grid(const InternVlTileConfig& config, const PixelSize& picture) {
  std::vector<TileGrid> grids;
  for (std::int64_t cols = 1; cols <= config.max_patches; ++cols) {
    for (std::int64_t rows = 1; rows * cols <= config.max_patches; ++rows) {
      if (rows * cols >= config.min_patches) grids.push_back({rows, cols});
    }
  }
  std::ranges::stable_sort(grids, {}, &TileGrid::tiles);
  const auto height = static_cast<double>(picture.height);
  const auto width = static_cast<double>(picture.width);
  const auto tile_area = static_cast<double>(config.side * config.side);
  TileGrid best;
  double least = INFINITY;
  for (const TileGrid& grid : grids) {
    const double ratio = static_cast<double>(grid.cols) / static_cast<double>(grid.rows);
    const double difference = std::abs(width / height - ratio);
    const bool is_filled = width * height > 0.5 * tile_area * static_cast<double>(grid.tiles());
    if (difference < least || (difference == least && is_filled)) {
      least = difference;
      best = grid;
    }
  }
  return best;
}

InternVlPictures::InternVlPictures(const std::filesystem::path& folder) {
  const auto [object, where] = find_image_processor(folder);
  std::string type;
  read_fields(object, {{"image_processor_type", &type}}, UnknownKeys::kIgnore, where);
  check_type(type, "GotOcr2ImageProcessor", where + ": image_processor_type");
  read_tiles(object, config_, where);
  read_picture_limits(object, config_, where);
  table_ = make_table_in_steps(config_.scale);
}

InternVlPictures::InternVlPictures(InternVlTileConfig config)
    : config_(std::move(config)), table_(make_table_in_steps(config_.scale)) {}

std::int64_t InternVlPictures::count_tiles(const TileGrid& grid) const {
  return grid.tiles() + (grid.tiles() > 1 && config_.has_whole ? 1 : 0);
}

TileGrid InternVlPictures::grid_of(const PixelSize& picture, bool is_whole) const {
  return is_whole ? TileGrid() : choose_grid(config_, picture);
}

at::Tensor InternVlPictures::process(const Image& image, bool is_whole,
                                     const PictureChange& change) const {
  const TileGrid grid = grid_of({image.height, image.width}, is_whole);
  const std::int64_t side = config_.side;
  const PixelSize size{grid.rows * side, grid.cols * side};
  const auto filter = static_cast<Filter>(config_.resample);
  Image changed;
  if (change) changed = changed_picture(image, size, filter, change);
  const Image& shown = change ? changed : image;
  const std::int64_t tiles = grid.tiles(), count = count_tiles(grid);
  at::Tensor values = at::empty({count, 3, side, side}, at::kFloat);
  auto* out = values.mutable_data_ptr<float>();
  const Image tiled = resize(shown, size.height, size.width, filter);
  for (std::int64_t i = 0; i < tiles; ++i, out += 3 * side * side) {
    write_window(tiled, {i / grid.cols * side, i % grid.cols * side, side}, table_, out);
  }
  if (count > tiles) write_window(resize(shown, side, side, filter), {0, 0, side}, table_, out);
  return values;
}

InternVlFrames::InternVlFrames(const std::filesystem::path& folder) {
  const auto [object, where] = find_video_processor(folder);
  std::string type;
  bool do_center_crop = false;
  read_fields(object, {{"video_processor_type", &type}, {"do_center_crop", &do_center_crop}},
              UnknownKeys::kIgnore, where);
  check_type(type, "InternVLVideoProcessor", where + ": video_processor_type");
  require_flag(do_center_crop, false, where + ": do_center_crop");
  read_tiles(object, config_, where);
  sampling_ = read_frames(object, where);
  table_ = make_fused_table(config_.scale);
}

at::Tensor InternVlFrames::process(const std::vector<Image>& frames,
                                   const PictureChange& change) const {
  const std::int64_t side = config_.side;
  const auto filter = static_cast<Filter>(config_.resample);
  at::Tensor values = at::empty({std::ssize(frames), 3, side, side}, at::kFloat);
  auto* out = values.mutable_data_ptr<float>();
  for (const Image& frame : frames) {
    Image changed;
    if (change) changed = changed_frame(frame, {side, side}, filter, change);
    write_window(resize_frame(change ? changed : frame, side, side, filter), {0, 0, side}, table_,
                 out);
    out += 3 * side * side;
  }
  return values;
}

}  // namespace vlm
