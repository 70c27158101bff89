#include "infer/items/item.h"

namespace vlm::infer {

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
