// "messages" as files hold them → a conversation and the media it shows.
//
// Content is text or a list of parts: {"type": "text", "text"}, {"type": "image"} (the next of the
// row's pictures) or {"type": "image", "path" | "image" | "url"}, the same with "video", and
// OpenAI's {"type": "image_url", "image_url": {"url"}} and its sister "video_url". When all content
// is plain text, the row's media go before the first user turn's text, as TRL does.
#pragma once

#include <vector>

#include "infer/items/item.h"

namespace vlm::infer {

using data::MediaRoot;

struct Conversation {
  std::vector<Message> messages;
  std::vector<MediaRef> media;
};

// `media` are the row's own. Throws Error for unknown roles and parts, for pictures and videos that
// don't fit the parts, and for a conversation that doesn't end with a user's turn.
Conversation parse_messages(const OrderedJson& messages, std::vector<MediaRef> media,
                            const MediaRoot& root);

}  // namespace vlm::infer
