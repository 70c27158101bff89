#include "infer/items/item.h"

#include <fstream>

#include "data/media.h"
#include "vlm/core/error.h"

namespace vlm::infer {

std::string read_bytes(const MediaRef& medium) {
  if (medium.bytes) return *medium.bytes;
  if (medium.archive.empty()) return load_text(medium.name);
  std::ifstream in(medium.archive, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(medium.offset));
  std::string bytes(medium.size, '\0');
  if (!in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw Error({.what = "can't read the file in the archive", .where = medium.name});
  }
  return bytes;
}

Image load_picture(const MediaRef& picture) {
  if (picture.bytes) return data::decode_image(*picture.bytes, picture.name);
  if (picture.archive.empty()) return data::load_image(picture.name);
  return data::decode_image(read_bytes(picture), picture.name);
}

const char* part_type(MediaKind kind) {
  return kind == MediaKind::kVideo ? "video" : "image";
}

std::vector<Message> make_conversation(const std::string& prompt,
                                       const std::vector<MediaRef>& media,
                                       const std::string& system) {
  std::vector<Message> messages;
  if (!system.empty()) {
    messages.push_back({.role = "system", .content = {{.type = "text", .text = system}}});
  }
  Message user{.role = "user"};
  for (const MediaRef& one : media) user.content.push_back({.type = part_type(one.kind)});
  user.content.push_back({.type = "text", .text = prompt});
  messages.push_back(std::move(user));
  return messages;
}

}  // namespace vlm::infer
