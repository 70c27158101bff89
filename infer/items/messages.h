// "messages" as files hold them → a conversation and the pictures it shows.
//
// Content is text or a list of parts: {"type": "text", "text"}, {"type": "image"} (the next of the
// row's pictures) or {"type": "image", "path" | "image" | "url"}, and OpenAI's {"type":
// "image_url", "image_url": {"url"}}. When all content is plain text, the row's pictures go before
// the first user turn's text, as TRL does.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "infer/items/item.h"

namespace vlm::infer {

// Where pictures may come from.
struct PictureRoot {
  std::filesystem::path folder;  // of the file that names them; relative paths begin here
  bool is_confined = false;      // true: files outside of the folder are refused
};

// A path, file:// or data: URI → a picture. Throws Error for http(s) and other schemes, for data
// that is not base64, and for a path that leaves a confined root.
PictureRef resolve_picture(const std::string& reference, const PictureRoot& root);

struct Conversation {
  std::vector<Message> messages;
  std::vector<PictureRef> pictures;
};

// `pictures` are the row's own. Throws Error for unknown roles and parts, for pictures that don't
// fit the image parts, and for a conversation that doesn't end with a user's turn.
Conversation parse_messages(const OrderedJson& messages, std::vector<PictureRef> pictures,
                            const PictureRoot& root);

// Standard base64 with padding. Throws Error for anything else.
std::string decode_base64(std::string_view text);

}  // namespace vlm::infer
