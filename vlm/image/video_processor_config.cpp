// Reads VideoProcessorConfig from the files that transformers writes.
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/image/processor_values.h"
#include "vlm/image/video_processor.h"

namespace vlm {
namespace {

// A size may be one number too, which is a square.
Json square(const Json& size) {
  return size.is_number() ? Json{{"height", size}, {"width", size}} : size;
}

// "size", "fps" and "num_frames" are what transformers 5 saves; "video_sampling" is the published
// files' and wins, but for its size.
void read_sampling(const Json& object, VideoProcessorConfig& config, const std::string& where) {
  Json size;
  Json sampling;
  FrameSampling& frames = config.sampling;
  read_fields(object,
              {{"size", &size},
               {"fps", &frames.fps},
               {"num_frames", &frames.max_frames},
               {"video_sampling", &sampling}},
              UnknownKeys::kIgnore, where);
  std::string size_key = ": size";
  if (!sampling.is_null()) {
    const std::string inside = where + ": video_sampling";
    Json video_size;
    read_fields(
        sampling,
        {{"fps", &frames.fps}, {"max_frames", &frames.max_frames}, {"video_size", &video_size}},
        UnknownKeys::kIgnore, inside);
    if (size.is_null()) {
      size = video_size;
      size_key = ": video_sampling: video_size";
    }
  }
  SizeValue value{config.size_longest_edge, config.size_height, config.size_width};
  read_size(square(size), value, where + size_key);
  config.size_longest_edge = value.longest_edge;
  config.size_height = value.height;
  config.size_width = value.width;
}

void check_sampling(const FrameSampling& sampling, const std::string& where) {
  if (!(sampling.fps > 0)) {
    throw Error({.what = "value out of range",
                 .where = where + ": fps",
                 .got = concat(sampling.fps),
                 .wanted = "more than 0"});
  }
  if (sampling.max_frames < 1) {
    throw Error({.what = "value out of range",
                 .where = where + ": max_frames",
                 .got = concat(sampling.max_frames),
                 .wanted = "at least 1"});
  }
}

}  // namespace

VideoProcessorConfig VideoProcessorConfig::load(const std::filesystem::path& folder) {
  const auto [object, where] = find_video_processor(folder);
  return parse(object, where);
}

VideoProcessorConfig VideoProcessorConfig::parse(const Json& object, const std::string& where) {
  VideoProcessorConfig config;
  std::string type = "SmolVLMVideoProcessor";
  Json tile_size;
  Json mean;
  Json std;
  read_fields(object,
              {{"video_processor_type", &type},
               {"do_convert_rgb", &config.do_convert_rgb},
               {"do_resize", &config.do_resize},
               {"do_rescale", &config.do_rescale},
               {"do_normalize", &config.do_normalize},
               {"resample", &config.resample},
               {"rescale_factor", &config.rescale_factor},
               {"image_mean", &mean},
               {"image_std", &std},
               {"max_image_size", &tile_size}},
              UnknownKeys::kIgnore, where);
  if (type != "SmolVLMVideoProcessor") {
    throw Error({.what = "unsupported video processor",
                 .where = where + ": video_processor_type",
                 .got = concat("'", type, "'"),
                 .wanted = "SmolVLMVideoProcessor"});
  }
  read_sampling(object, config, where);
  read_longest_edge(tile_size, config.max_image_size_longest_edge, where + ": max_image_size");
  read_channels(mean, config.image_mean, where + ": image_mean");
  read_channels(std, config.image_std, where + ": image_std");
  check_filter(config.resample, where + ": resample");
  check_std(config.image_std, where + ": image_std");
  check_sampling(config.sampling, where);
  return config;
}

std::string VideoProcessorConfig::describe() const {
  return Json{do_resize,
              do_rescale,
              do_normalize,
              resample,
              rescale_factor,
              image_mean,
              image_std,
              size_longest_edge,
              size_height,
              size_width,
              max_image_size_longest_edge}
      .dump();
}

}  // namespace vlm
