// One training or evaluation example before its pictures and clips are opened.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vlm/text/chat_template.h"

namespace vlm::data {

struct Sample {
  std::vector<Message> messages;
  std::vector<std::filesystem::path> images;  // of the image and video parts, in their order
  std::string where;                          // "train.jsonl:12", for errors
};

}  // namespace vlm::data
