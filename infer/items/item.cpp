#include "infer/items/item.h"

#include <fstream>

#include "data/media.h"
#include "vlm/core/error.h"

namespace vlm::infer {

std::string read_bytes(const PictureRef& picture) {
  if (picture.bytes) return *picture.bytes;
  if (picture.archive.empty()) return load_text(picture.name);
  std::ifstream in(picture.archive, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(picture.offset));
  std::string bytes(picture.size, '\0');
  if (!in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw Error({.what = "can't read the file in the archive", .where = picture.name});
  }
  return bytes;
}

Image load_picture(const PictureRef& picture) {
  if (picture.bytes) return data::decode_image(*picture.bytes, picture.name);
  if (picture.archive.empty()) return data::load_image(picture.name);
  return data::decode_image(read_bytes(picture), picture.name);
}

std::vector<Message> make_conversation(const std::string& prompt, std::size_t images,
                                       const std::string& system) {
  std::vector<Message> messages;
  if (!system.empty()) {
    messages.push_back({.role = "system", .content = {{.type = "text", .text = system}}});
  }
  Message user{.role = "user"};
  for (std::size_t i = 0; i < images; ++i) user.content.push_back({.type = "image"});
  user.content.push_back({.type = "text", .text = prompt});
  messages.push_back(std::move(user));
  return messages;
}

}  // namespace vlm::infer
