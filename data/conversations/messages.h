// "messages" as Hugging Face and OpenAI have them → a conversation. Used for training data and for
// rows of questions.
//
// A message is {"role", "content"}; content is text or a list of parts:
//
//   {"type": "text", "text"}
//   {"type": "image"} and {"type": "video"}, which may name their file (conversation_builder.h)
//   {"type": "image_url", "image_url": {"url", "detail"} or a URL}, and its sister "video_url"
//
// "detail" is OpenAI's: a picture with "low" is shown as one tile, with "high" and "auto" as the
// checkpoint says. Null fields count as absent. Fields that would change the conversation and
// aren't supported (tool calls, a message's own pictures) are an Error that names them.
#pragma once

#include "data/conversations/conversation_builder.h"

namespace vlm::data {

// The text of a key that `object` must have. Throws Error naming `where` and the key.
const std::string& require_text(const Json& object, const char* key, const std::string& where);

// A turn of ShareGPT: {"from", "value"}, or a message.
void add_turn(ConversationBuilder& builder, const Json& turn);

// `name` is the list's name in errors. Throws Error for a malformed or empty list.
void add_messages(ConversationBuilder& builder, const Json& messages, const std::string& name);

}  // namespace vlm::data
