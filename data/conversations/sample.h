// One training or evaluation example before its pictures and clips are opened.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "data/media/media_ref.h"
#include "vlm/text/chat_template.h"

namespace vlm::data {

struct Sample {
  std::vector<Message> messages;
  std::vector<MediaRef> media;  // of the parts that are no text, in their order
  std::string where;            // "train.jsonl:12", for errors

  // Whether a message is learned, where the file says so; empty, or one a message.
  std::vector<std::optional<bool>> loss = {};
  // First message of the completion, in data that tells it from the prompt.
  std::optional<std::size_t> completion = {};
  // Every right answer, where the file has several; the last message holds the first.
  std::vector<std::string> references = {};
};

}  // namespace vlm::data
