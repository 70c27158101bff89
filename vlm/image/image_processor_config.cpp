// Reads ImageProcessorConfig from the files that transformers writes.
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/image/image_processor.h"
#include "vlm/image/processor_values.h"

namespace vlm {
namespace {

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

}  // namespace

ImageProcessorConfig ImageProcessorConfig::load(const std::filesystem::path& folder) {
  const auto [object, where] = find_image_processor(folder);
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
  SizeValue longest{config.size_longest_edge, config.size_height, config.size_width};
  read_size(size, longest, where + ": size");
  config.size_longest_edge = longest.longest_edge;
  config.size_height = longest.height;
  config.size_width = longest.width;
  read_longest_edge(tile_size, config.max_image_size_longest_edge, where + ": max_image_size");
  read_channels(mean, config.image_mean, where + ": image_mean");
  read_channels(std, config.image_std, where + ": image_std");
  check_filter(config.resample, where + ": resample");
  check_std(config.image_std, where + ": image_std");
  return config;
}

}  // namespace vlm
