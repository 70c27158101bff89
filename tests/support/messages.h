// Conversations as golden files have them: Hugging Face messages.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/text/chat_template.h"

namespace vlm {

inline std::vector<Message> parse_messages(const Json& json) {
  std::vector<Message> messages;
  for (const Json& one : json) {
    Message message{.role = one["role"]};
    for (const Json& part : one["content"]) {
      message.content.push_back({.type = part["type"], .text = part.value("text", "")});
    }
    messages.push_back(message);
  }
  return messages;
}

}  // namespace vlm
