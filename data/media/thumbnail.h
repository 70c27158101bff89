// Pictures and clips → small copies that stand in a page.
//
//   Image [H, W, 3] u8 ─► scaled down to at most max_side ─► JPEG ─► "data:image/jpeg;base64,…"
//   MediaRef ─► make_thumbnails ─► one of a picture; of a clip some, from all over it
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/media/media_ref.h"
#include "vlm/image/image.h"

namespace vlm::data {

std::string make_thumbnail_uri(const Image& image, std::int64_t max_side);

struct Thumbnail {
  std::string uri;
  std::string title;  // "cat.png"; of a frame "clip.mp4, 1.5 s"
};

struct MediumThumbnails {
  std::vector<Thumbnail> pictures;  // frames of a clip in the order of time
  std::string error;                // why there are none; empty when there are
};

struct ThumbnailOptions {
  std::int64_t max_side = 256;   // pixels
  std::int64_t clip_frames = 4;  // at most; they are spread evenly, whichever a model is shown
};

// A medium that can't be read is no exception here but an `error` that names it. Clips from pipes
// are not read: their bytes come only once.
MediumThumbnails make_thumbnails(const MediaRef& medium, const ThumbnailOptions& options);

}  // namespace vlm::data
