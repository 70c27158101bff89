// What a Picture of the library holds: the name of a file, its bytes, its pixels, or a video.
#pragma once

#include <string>
#include <variant>

#include "data/media/media.h"
#include "infer/media/shown_media.h"
#include "infer/vlm.h"

namespace vlm {

struct Picture::Source {
  struct File {
    std::string path;
  };
  struct Bytes {
    std::string bytes;
  };
  std::variant<File, Bytes, Image, infer::VideoRequest> value;

  const char* part_type() const {
    return std::holds_alternative<infer::VideoRequest>(value) ? "video" : "image";
  }

  void show(infer::ShownMedia& media) const {
    if (const auto* file = std::get_if<File>(&value)) {
      media.add(data::load_image(file->path));
    } else if (const auto* encoded = std::get_if<Bytes>(&value)) {
      media.add(data::decode_image(encoded->bytes, "picture in memory"));
    } else if (const auto* video = std::get_if<infer::VideoRequest>(&value)) {
      media.add(*video);
    } else {
      media.add(std::get<Image>(value));
    }
  }
};

}  // namespace vlm
