#include "infer/items/item.h"

namespace vlm::infer {

std::vector<Message> make_conversation(const std::string& prompt,
                                       const std::vector<MediaRef>& media,
                                       const std::string& system) {
  std::vector<Message> messages;
  if (!system.empty()) {
    messages.push_back({.role = "system", .content = {{.type = "text", .text = system}}});
  }
  Message user{.role = "user"};
  for (const MediaRef& medium : media) user.content.push_back({.type = part_type(medium.kind)});
  user.content.push_back({.type = "text", .text = prompt});
  messages.push_back(std::move(user));
  return messages;
}

}  // namespace vlm::infer
