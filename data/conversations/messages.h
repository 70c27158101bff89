// "messages" of Hugging Face's and OpenAI's kind → a conversation: one reader for data that is
// learned from and for rows that are asked.
//
// A message is {"role", "content"}; content is text or a list of parts:
//
//   {"type": "text", "text"}
//   {"type": "image"} and {"type": "video"}, which may name their file (conversation_builder.h)
//   {"type": "image_url", "image_url": {"url", "detail"} or a URL}, and its sister "video_url"
//
// "detail" is OpenAI's: a picture with "low" is seen as one tile, with "high" and "auto" as the
// checkpoint says. Fields that are null are as if they weren't there. What would change the
// conversation and isn't supported (calls of tools, a message's own pictures) is an Error by name.
#pragma once

#include "data/conversations/conversation_builder.h"

namespace vlm::data {

// A text that `object` must have. Throws Error naming `where` and the key.
const std::string& require_text(const Json& object, const char* key, const std::string& where);

// A turn of ShareGPT: {"from", "value"}, or a message.
void add_turn(ConversationBuilder& builder, const Json& turn);

// `name` is what the list is called in errors. Throws Error for what is malformed, and for an empty
// list.
void add_messages(ConversationBuilder& builder, const Json& messages, const std::string& name);

}  // namespace vlm::data
