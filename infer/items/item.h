// One thing to ask a model: a conversation with its pictures, and what its row shows.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "vlm/text/chat_template.h"

namespace vlm::infer {

struct BatchItem {
  std::string id;                                            // of the row; no two items share one
  std::vector<std::pair<std::string, std::string>> columns;  // shown in the row behind the id
  std::vector<Message> messages;                             // what the model is asked
  std::vector<std::filesystem::path> images;                 // of the image parts, in their order
};

// One user turn: the pictures first, then the text; a system message in front when there is one.
std::vector<Message> make_conversation(const std::string& prompt, std::size_t images,
                                       const std::string& system);

}  // namespace vlm::infer
