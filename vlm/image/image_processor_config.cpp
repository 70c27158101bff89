// Reads ImageProcessorConfig from the files that transformers writes.
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/fields.h"
#include "vlm/image/image_processor.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// Longest edge that a config may ask for: no checkpoint comes near, and a typing error of three
// more digits shall not end in an allocation of gigabytes.
constexpr std::int64_t kMaxEdge = 16384;

// An object of the checkpoint's files and the words that say where it is.
struct Source {
  Json object;
  std::string where;
};

Source find_source(const fs::path& folder) {
  const fs::path combined = folder / "processor_config.json";
  std::error_code ignored;
  if (fs::exists(combined, ignored)) {
    Json whole = load_json(combined);
    if (whole.is_object() && whole.contains("image_processor")) {
      return {std::move(whole["image_processor"]), combined.string() + ": image_processor"};
    }
  }
  const fs::path single = folder / "preprocessor_config.json";
  if (fs::exists(single, ignored)) return {load_json(single), single.string()};
  throw Error(
      {.what = "no image processor config",
       .where = folder.string(),
       .wanted = "preprocessor_config.json, or processor_config.json with image_processor"});
}

// Other families' processors have the same keys and other arithmetic.
void check_type(const std::string& type, const std::string& where) {
  for (const std::string family : {"SmolVLMImageProcessor", "Idefics3ImageProcessor"}) {
    for (const char* backend : {"", "Pil", "Fast"}) {
      if (type == family + backend) return;
    }
  }
  throw Error({.what = "unsupported image processor",
               .where = where + ": image_processor_type",
               .got = concat("'", type, "'"),
               .wanted = "SmolVLMImageProcessor or Idefics3ImageProcessor"});
}

void check_edge(std::int64_t edge, const std::string& where) {
  if (edge >= 1 && edge <= kMaxEdge) return;
  throw Error({.what = "impossible size",
               .where = where,
               .got = concat(edge),
               .wanted = concat("1 to ", kMaxEdge, " pixels")});
}

// {"longest_edge": n}, or {"height": n, "width": m}; the first wins, as in the reference.
void read_size(const Json& size, ImageProcessorConfig& config, const std::string& where) {
  if (size.is_null()) return;
  std::int64_t longest = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  read_fields(size, {{"longest_edge", &longest}, {"height", &height}, {"width", &width}},
              UnknownKeys::kIgnore, where);
  if (longest == 0 && height == 0 && width == 0) {
    throw Error({.what = "unsupported size",
                 .where = where,
                 .got = size.dump(),
                 .wanted = "longest_edge, or height and width"});
  }
  if (longest != 0) {
    check_edge(longest, where + ": longest_edge");
  } else {
    check_edge(height, where + ": height");
    check_edge(width, where + ": width");
  }
  config.size_longest_edge = longest;
  config.size_height = height;
  config.size_width = width;
}

void read_tile_size(const Json& size, ImageProcessorConfig& config, const std::string& where) {
  if (size.is_null()) return;
  std::int64_t edge = 0;
  read_fields(size, {{"longest_edge", &edge}}, UnknownKeys::kIgnore, where);
  check_edge(edge, where + ": longest_edge");
  config.max_image_size_longest_edge = edge;
}

// A number for all three channels, or one a channel.
void read_channels(const Json& value, std::vector<double>& out, const std::string& where) {
  if (value.is_null()) return;
  const bool numbers =
      value.is_number() ||
      (value.is_array() && value.size() == 3 &&
       std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_number(); }));
  if (!numbers) {
    throw Error({.what = "wrong value",
                 .where = where,
                 .got = value.dump(),
                 .wanted = "a number, or a list of three numbers"});
  }
  out = value.is_number() ? std::vector<double>(3, value.get<double>())
                          : value.get<std::vector<double>>();
}

void check_values(const ImageProcessorConfig& config, const std::string& where) {
  if (config.resample < 0 || config.resample >= kFilterCount) {
    throw Error({.what = "unknown filter",
                 .where = where + ": resample",
                 .got = concat(config.resample),
                 .wanted = "0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box or 5 Hamming"});
  }
  for (const double std : config.image_std) {
    if (static_cast<float>(std) != 0.0F) continue;
    throw Error({.what = "division by zero",
                 .where = where + ": image_std",
                 .got = concat(std),
                 .wanted = "numbers other than 0"});
  }
}

}  // namespace

ImageProcessorConfig ImageProcessorConfig::load(const std::filesystem::path& folder) {
  const auto [object, where] = find_source(folder);
  return parse(object, where);
}

ImageProcessorConfig ImageProcessorConfig::parse(const Json& object, const std::string& where) {
  ImageProcessorConfig config;
  std::string type = "SmolVLMImageProcessor";
  Json size;
  Json tile_size;
  Json mean;
  Json std;
  read_fields(object,
              {{"image_processor_type", &type},
               {"do_convert_rgb", &config.do_convert_rgb},
               {"do_resize", &config.do_resize},
               {"do_image_splitting", &config.do_image_splitting},
               {"do_rescale", &config.do_rescale},
               {"do_normalize", &config.do_normalize},
               {"do_pad", &config.do_pad},
               {"resample", &config.resample},
               {"rescale_factor", &config.rescale_factor},
               {"image_mean", &mean},
               {"image_std", &std},
               {"size", &size},
               {"max_image_size", &tile_size}},
              UnknownKeys::kIgnore, where);
  check_type(type, where);
  read_size(size, config, where + ": size");
  read_tile_size(tile_size, config, where + ": max_image_size");
  read_channels(mean, config.image_mean, where + ": image_mean");
  read_channels(std, config.image_std, where + ": image_std");
  check_values(config, where);
  return config;
}

}  // namespace vlm
