// "messages" as rows hold them → a conversation and the media it shows.
//
// The reader is that of training data (data/conversations/messages.h): what is learned and what is
// asked are read alike.
#pragma once

#include <vector>

#include "infer/items/item.h"

namespace vlm::infer {

using data::MediaRoot;

struct ItemConversation {
  std::vector<Message> messages;
  std::vector<MediaRef> media;
};

// `media` are the row's own; of those in a tar a part may name one. Throws Error for
// unknown roles and parts, for pictures and videos that don't fit the parts, and for a conversation
// that doesn't end with a user's turn.
ItemConversation parse_messages(const OrderedJson& messages, std::vector<MediaRef> media,
                                const MediaRoot& root);

}  // namespace vlm::infer
