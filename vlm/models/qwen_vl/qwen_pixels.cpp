#include "vlm/models/qwen_vl/qwen_pixels.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/image/processor_values.h"
#include "vlm/image/video_processor.h"

namespace vlm {
namespace {

constexpr double kMostStretched = 200;
constexpr std::int64_t kMostPixels = 1LL << 28;

void require_value(bool holds, const std::string& where, std::int64_t got,
                   const std::string& wanted) {
  if (holds) return;
  throw Error({.what = "value out of range", .where = where, .got = concat(got), .wanted = wanted});
}

void check(const QwenPixelConfig& c, const std::string& where) {
  require_value(c.patch_size >= 1 && c.patch_size <= 1 << 10, where + ": patch_size", c.patch_size,
                "1 to 1024");
  require_value(c.merge_size >= 1 && c.merge_size <= 16, where + ": merge_size", c.merge_size,
                "1 to 16");
  require_value(c.temporal_patch_size >= 1 && c.temporal_patch_size <= 16,
                where + ": temporal_patch_size", c.temporal_patch_size, "1 to 16");
  require_value(c.max_pixels >= 1 && c.max_pixels <= kMostPixels, where + ": max_pixels",
                c.max_pixels, concat("1 to ", kMostPixels));
  require_value(c.min_pixels >= 1 && c.min_pixels <= c.max_pixels, where + ": min_pixels",
                c.min_pixels, concat("1 to max_pixels = ", c.max_pixels));
}

// Keys that both kinds of processors have.
void read_pixels(const Json& object, QwenPixelConfig& config, const std::string& where) {
  Json mean, std, size;
  PixelScale& scale = config.scale;
  read_fields(object,
              {{"do_resize", &config.do_resize},
               {"do_rescale", &scale.do_rescale},
               {"do_normalize", &scale.do_normalize},
               {"resample", &config.resample},
               {"rescale_factor", &scale.rescale_factor},
               {"image_mean", &mean},
               {"image_std", &std},
               {"patch_size", &config.patch_size},
               {"temporal_patch_size", &config.temporal_patch_size},
               {"merge_size", &config.merge_size},
               {"size", &size}},
              UnknownKeys::kIgnore, where);
  if (size.is_object()) {
    read_fields(size, {{"shortest_edge", &config.min_pixels}, {"longest_edge", &config.max_pixels}},
                UnknownKeys::kIgnore, where + ": size");
  }
  // The older keys win, as in transformers.
  read_fields(object, {{"min_pixels", &config.min_pixels}, {"max_pixels", &config.max_pixels}},
              UnknownKeys::kIgnore, where);
  read_channels(mean, scale.mean, where + ": image_mean");
  read_channels(std, scale.std, where + ": image_std");
  check_filter(config.resample, where + ": resample");
  check_std(scale.std, where + ": image_std");
  check(config, where);
}

// Qwen2-VL's class defaults; Qwen3-VL's files name theirs.
QwenPixelConfig class_defaults() {
  QwenPixelConfig config;
  config.scale.mean = {0.48145466, 0.4578275, 0.40821073};
  config.scale.std = {0.26862954, 0.26130258, 0.27577711};
  return config;
}

// Python's round: halves go to the even number.
std::int64_t nearest_multiple(std::int64_t edge, std::int64_t side) {
  return std::llrint(static_cast<double>(edge) / static_cast<double>(side)) * side;
}

// Over how many frames pixels are counted: as compared with the limits, and as scaled to them.
struct CountedFrames {
  double compared = 1, scaled = 1;
};

PixelSize fit(const QwenPixelConfig& c, const PixelSize& picture, const CountedFrames& counted) {
  const auto height = static_cast<double>(picture.height);
  const auto width = static_cast<double>(picture.width);
  const auto side = static_cast<double>(c.side());
  const std::string got = concat(picture.height, " × ", picture.width, " pixels");
  if (std::max(height, width) / std::min(height, width) > kMostStretched) {
    throw Error({.what = "picture is too long for its width",
                 .got = got,
                 .wanted = concat("a ratio of at most ", kMostStretched)});
  }
  PixelSize size{nearest_multiple(picture.height, c.side()),
                 nearest_multiple(picture.width, c.side())};
  const double pixels = static_cast<double>(size.height * size.width) * counted.compared;
  if (pixels > static_cast<double>(c.max_pixels)) {
    const double beta =
        std::sqrt(counted.scaled * height * width / static_cast<double>(c.max_pixels));
    const auto smaller = [&](double edge) {
      return std::max(c.side(),
                      static_cast<std::int64_t>(std::floor(edge / beta / side)) * c.side());
    };
    size = {smaller(height), smaller(width)};
  } else if (pixels < static_cast<double>(c.min_pixels)) {
    const double beta =
        std::sqrt(static_cast<double>(c.min_pixels) / (counted.scaled * height * width));
    const auto larger = [&](double edge) {
      return static_cast<std::int64_t>(std::ceil(edge * beta / side)) * c.side();
    };
    size = {larger(height), larger(width)};
  }
  if (size.height < c.side() || size.width < c.side()) {
    throw Error({.what = "picture is too small",
                 .got = got,
                 .wanted = concat("at least ", (c.side() + 1) / 2, " pixels a side"),
                 .hint = "min_pixels in the checkpoint's processor config enlarges small ones"});
  }
  return size;
}

// Pixels that aren't resized are cut as they are: into whole tokens.
PixelSize as_it_is(const QwenPixelConfig& c, const PixelSize& picture) {
  if (picture.height % c.side() == 0 && picture.width % c.side() == 0) return picture;
  throw Error({.what = "picture can't be cut into whole tokens",
               .got = concat(picture.height, " × ", picture.width, " pixels"),
               .wanted = concat("multiples of ", c.side(), " pixels a side"),
               .hint = "the checkpoint's processor config says do_resize: false; set it to true, "
                       "or resize the picture"});
}

// Writes the patches of one group of temporal_patch_size frames of one size.
void write_patches(const QwenPixelConfig& c, const std::vector<const Image*>& frames,
                   const PixelTable& table, float* out) {
  const std::int64_t p = c.patch_size, merge = c.merge_size;
  const std::int64_t rows = frames[0]->height / p, cols = frames[0]->width / p;
  const auto write = [&](std::int64_t row, std::int64_t col) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      for (const Image* frame : frames) {
        for (std::int64_t y = 0; y < p; ++y) {
          const std::uint8_t* pixel =
              frame->pixels.data() + ((row * p + y) * frame->width + col * p) * 3 + channel;
          for (std::int64_t x = 0; x < p; ++x, pixel += 3) *out++ = table[channel][*pixel];
        }
      }
    }
  };
  for (std::int64_t top = 0; top < rows; top += merge) {
    for (std::int64_t left = 0; left < cols; left += merge) {
      for (std::int64_t row = top; row < top + merge; ++row) {
        for (std::int64_t col = left; col < left + merge; ++col) write(row, col);
      }
    }
  }
}

PatchGrid grid_of_size(const QwenPixelConfig& c, const PixelSize& size, std::int64_t frames) {
  return {.frames = (frames + c.temporal_patch_size - 1) / c.temporal_patch_size,
          .height = size.height / c.patch_size,
          .width = size.width / c.patch_size};
}

// Frames of one size, a multiple of a token's side → rows of patches.
Pixels to_patches(const QwenPixelConfig& c, const std::vector<const Image*>& frames,
                  const PixelTable& table) {
  const PixelSize size{frames[0]->height, frames[0]->width};
  const PatchGrid grid = grid_of_size(c, size, std::ssize(frames));
  const std::int64_t numbers = 3 * c.temporal_patch_size * c.patch_size * c.patch_size;
  Pixels pixels{.values = at::empty({grid.patches(), numbers}, at::kFloat),
                .tokens = grid.patches() / (c.merge_size * c.merge_size),
                .grids = {grid}};
  auto* out = pixels.values.mutable_data_ptr<float>();
  for (std::int64_t t = 0; t < grid.frames; ++t) {
    std::vector<const Image*> group;
    for (std::int64_t i = 0; i < c.temporal_patch_size; ++i) {
      const std::int64_t at = std::min(t * c.temporal_patch_size + i, std::ssize(frames) - 1);
      group.push_back(frames[static_cast<std::size_t>(at)]);
    }
    write_patches(c, group, table, out + t * grid.height * grid.width * numbers);
  }
  return pixels;
}

}  // namespace

std::string QwenPixelConfig::describe() const {
  return Json({do_resize, scale.do_rescale, scale.do_normalize, resample, scale.rescale_factor,
               scale.mean, scale.std, min_pixels, max_pixels, patch_size, temporal_patch_size,
               merge_size})
      .dump();
}

PixelSize fit_pixels(const QwenPixelConfig& config, const PixelSize& picture) {
  return fit(config, picture, {});
}

QwenPictures::QwenPictures(const std::filesystem::path& folder) : config_(class_defaults()) {
  const auto [object, where] = find_image_processor(folder);
  read_pixels(object, config_, where);
  table_ = make_table_in_steps(config_.scale);
}

PixelSize QwenPictures::size_of(const PixelSize& picture) const {
  return config_.do_resize ? fit_pixels(config_, picture) : as_it_is(config_, picture);
}

PatchGrid QwenPictures::grid_of(const PixelSize& picture) const {
  return grid_of_size(config_, size_of(picture), 1);
}

Pixels QwenPictures::process(const Image& image, const PictureChange& change) const {
  const PixelSize size = size_of({image.height, image.width});
  const auto filter = static_cast<Filter>(config_.resample);
  Image changed;
  if (change) changed = changed_picture(image, size, filter, change);
  const Image& shown = change ? changed : image;
  if (shown.height == size.height && shown.width == size.width) {
    return to_patches(config_, {&shown}, table_);
  }
  const Image resized = resize(shown, size.height, size.width, filter);
  return to_patches(config_, {&resized}, table_);
}

QwenFrames::QwenFrames(const std::filesystem::path& folder, bool counts_frames)
    : config_(class_defaults()), counts_frames_(counts_frames) {
  const auto [object, where] = find_video_processor(folder);
  config_.min_pixels = 128 * 28 * 28;
  config_.max_pixels = 768 * 28 * 28;
  sampling_ = {.rule = counts_frames ? FrameSampling::Rule::kEnds : FrameSampling::Rule::kParts,
               .fps = 2,
               .max_frames = 768,
               .skip_s = 0,
               .min_frames = 4};
  read_pixels(object, config_, where);
  read_fields(object,
              {{"fps", &sampling_.fps},
               {"min_frames", &sampling_.min_frames},
               {"max_frames", &sampling_.max_frames}},
              UnknownKeys::kIgnore, where);
  if (!counts_frames) sampling_.multiple = config_.temporal_patch_size;
  table_ = make_fused_table(config_.scale);
}

PixelSize QwenFrames::size_of(const PixelSize& frame, std::int64_t clip_frames) const {
  if (!config_.do_resize) return as_it_is(config_, frame);
  if (!counts_frames_) return fit(config_, frame, {});
  PixelSize size = frame;
  if (std::min(size.height, size.width) < config_.side()) {
    const auto side = static_cast<double>(config_.side());
    const double scale =
        std::max(side / static_cast<double>(frame.height), side / static_cast<double>(frame.width));
    size.height = static_cast<std::int64_t>(static_cast<double>(frame.height) * scale);
    size.width = static_cast<std::int64_t>(static_cast<double>(frame.width) * scale);
  }
  const std::int64_t frames = std::max(clip_frames, config_.temporal_patch_size);
  return fit(
      config_, size,
      {.compared = static_cast<double>(nearest_multiple(frames, config_.temporal_patch_size)),
       .scaled = static_cast<double>(frames)});
}

PatchGrid QwenFrames::grid_of(const PixelSize& frame, std::int64_t frames,
                              std::int64_t clip_frames) const {
  return grid_of_size(config_, size_of(frame, clip_frames), frames);
}

Pixels QwenFrames::process(const std::vector<Image>& frames, std::int64_t clip_frames,
                           const PictureChange& change) const {
  std::vector<Image> resized;
  const PixelSize size = size_of({frames[0].height, frames[0].width}, clip_frames);
  const auto filter = static_cast<Filter>(config_.resample);
  for (const Image& frame : frames) {
    Image changed;
    if (change) changed = changed_frame(frame, size, filter, change);
    resized.push_back(resize_frame(change ? changed : frame, size.height, size.width, filter));
  }
  std::vector<const Image*> shown;
  for (const Image& frame : resized) shown.push_back(&frame);
  return to_patches(config_, shown, table_);
}

}  // namespace vlm
