// The conversations that InternVL's original layout was trained with. They stand in the vendor's
// code, by the name that config.json calls "template"; the chat_template of these repositories'
// tokenizers is the language model's, and isn't what the model knows.
//
//   messages ─► name_media ─► text with places for media ─► ChatTemplate ─► the prompt
//
// Reference: conversation.py of OpenGVLab/InternVL, and the examples of its model cards.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vlm/text/chat_template.h"

namespace vlm {

struct InternVlConversation {
  ChatTemplate chat_template;  // of messages with plain_content
  std::string end;             // of a turn, a token
};

// `system` replaces the conversation's own system message. Throws Error naming `where` for a name
// that isn't known.
InternVlConversation make_conversation(const std::string& name,
                                       const std::optional<std::string>& system,
                                       const std::string& where, const TemplateOptions& options);

// Messages of parts → messages of text, where `picture` and `video` stand for media: in front of a
// message's text a line for each medium, "Image-1: " before pictures where a message has several
// (counted through the conversation), and behind text the places alone.
std::vector<Message> name_media(const std::vector<Message>& messages, const std::string& picture,
                                const std::string& video);

}  // namespace vlm
