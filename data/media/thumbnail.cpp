#include "data/media/thumbnail.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <filesystem>
#include <opencv2/imgproc.hpp>

#include "data/media/video_clip.h"
#include "data/opencv/image_view.h"
#include "data/pictures/jpeg_writer.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

bool is_pipe(const std::filesystem::path& path) {
  return path == "-" || (std::filesystem::exists(path) && !std::filesystem::is_regular_file(path) &&
                         !std::filesystem::is_directory(path));
}

std::vector<Thumbnail> clip_thumbnails(const std::string& path, const ThumbnailOptions& options) {
  if (is_pipe(path)) {
    throw Error({.what = "a clip from a pipe can't be read again", .where = path});
  }
  std::vector<Thumbnail> thumbnails;
  ClipReader reader(
      path,
      {.strategy = "uniform", .max_frames = options.clip_frames, .frame_size = options.max_side},
      {});
  reader.for_each_frame([&](VideoFrame frame) {
    const double tenths_s = std::round(frame.time_s * 10) / 10;
    thumbnails.push_back(
        {make_thumbnail_uri(frame.image, options.max_side), concat(path, ", ", tenths_s, " s")});
    return true;
  });
  return thumbnails;
}

}  // namespace

std::string make_thumbnail_uri(const Image& image, std::int64_t max_side) {
  const std::int64_t longest = std::max(image.height, image.width);
  const double factor = std::min(1.0, static_cast<double>(max_side) / static_cast<double>(longest));
  const auto scaled = [factor](std::int64_t edge) {
    return std::max<std::int64_t>(1, std::llround(static_cast<double>(edge) * factor));
  };
  Image small{.height = scaled(image.height), .width = scaled(image.width)};
  small.pixels.resize(static_cast<std::size_t>(small.height * small.width * 3));
  cv::Mat written = view(small);
  cv::resize(view(image), written, written.size(), 0, 0, cv::INTER_AREA);
  return "data:image/jpeg;base64," + encode_base64(encode_jpeg(small));
}

MediumThumbnails make_thumbnails(const MediaRef& medium, const ThumbnailOptions& options) {
  try {
    if (medium.kind == MediaKind::kVideo)
      return {.pictures = clip_thumbnails(medium.name, options)};
    return {
        .pictures = {{make_thumbnail_uri(load_picture(medium), options.max_side), medium.name}}};
  } catch (const std::exception& error) {
    return {.error = error.what()};
  }
}

}  // namespace vlm::data
