// "messages" as files hold them → a conversation and the media it shows.
//
// Content is text or a list of parts: {"type": "text", "text"}, {"type": "image"} (the next of the
// row's pictures) or {"type": "image", "path" | "image" | "url"}, the same with "video", and
// OpenAI's {"type": "image_url", "image_url": {"url"}} and its sister "video_url". When all content
// is plain text, the row's media go before the first user turn's text, as TRL does.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "infer/items/item.h"

namespace vlm::infer {

// Where media may come from.
struct MediaRoot {
  std::filesystem::path folder;  // of the file that names them; relative paths begin here
  bool is_confined = false;      // true: files outside of the folder are refused
};

// A path, file:// or (pictures only) data: URI → a medium. Throws Error for http(s) and other
// schemes, for data that is not base64, and for a path that leaves a confined root.
MediaRef resolve_medium(const std::string& reference, const MediaRoot& root,
                        MediaKind kind = MediaKind::kPicture);

struct Conversation {
  std::vector<Message> messages;
  std::vector<MediaRef> media;
};

// `media` are the row's own. Throws Error for unknown roles and parts, for pictures and videos that
// don't fit the parts, and for a conversation that doesn't end with a user's turn.
Conversation parse_messages(const OrderedJson& messages, std::vector<MediaRef> media,
                            const MediaRoot& root);

// Standard base64 with padding. Throws Error for anything else.
std::string decode_base64(std::string_view text);

}  // namespace vlm::infer
