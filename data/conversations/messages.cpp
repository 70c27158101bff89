#include "data/conversations/messages.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

Error wrong_type(const std::string& where, const Json& got, const std::string& wanted) {
  return Error({.what = "wrong type", .where = where, .got = describe(got), .wanted = wanted});
}

bool has(const Json& object, const char* key) {
  return object.contains(key) && !object[key].is_null();
}

// OpenAI's "detail": whether the picture is seen as one tile.
bool read_detail(const Json& object, MediaKind kind, const std::string& where) {
  if (!has(object, "detail")) return false;
  const Json& detail = object["detail"];
  const bool is_picture = kind == MediaKind::kPicture;
  if (detail == "auto" || detail == "high") return false;
  if (detail == "low" && is_picture) return true;
  throw Error({.what = concat("unsupported detail of a ", is_picture ? "picture" : "video"),
               .where = where + ": detail",
               .got = describe(detail),
               .wanted = is_picture ? "low, high or auto" : "high or auto"});
}

void add_url(ConversationBuilder& builder, MediaKind kind, const char* key, const Json& part) {
  const std::string& where = builder.where();
  if (!has(part, key)) throw Error({.what = concat("no '", key, "'"), .where = where});
  const Json& url = part[key];
  bool is_whole = read_detail(part, kind, where);
  if (url.is_string()) return builder.add_media_part(kind, url, is_whole);
  const std::string place = concat(where, ": ", key);
  if (!url.is_object()) throw wrong_type(place, url, "a text, or an object with 'url'");
  is_whole = read_detail(url, kind, place) || is_whole;
  require_text(url, "url", place);
  builder.add_media_part(kind, url["url"], is_whole);
}

void add_part(ConversationBuilder& builder, const Json& part) {
  const std::string& where = builder.where();
  const std::string& type = require_text(part, "type", where);
  if (type == "text") return builder.add_part_text(require_text(part, "text", where));
  if (type == "image_url") return add_url(builder, MediaKind::kPicture, "image_url", part);
  if (type == "video_url") return add_url(builder, MediaKind::kVideo, "video_url", part);
  if (type != "image" && type != "video") {
    throw Error({.what = "unknown content part",
                 .where = where,
                 .got = concat("'", type, "'"),
                 .wanted = "text, image, image_url, video or video_url"});
  }
  const MediaKind kind = type == "video" ? MediaKind::kVideo : MediaKind::kPicture;
  builder.add_media_part(kind, part, read_detail(part, kind, where));
}

// Whether the message is learned: "loss", axolotl's "train" and "training", OpenAI's "weight".
void read_loss(ConversationBuilder& builder, const Json& message) {
  for (const char* key : {"loss", "train", "training", "weight"}) {
    if (!has(message, key)) continue;
    const Json value = plain_numbers(message[key]);
    if (!value.is_boolean() && value != 0 && value != 1) {
      throw Error({.what = "wrong value",
                   .where = concat(builder.where(), ": ", key),
                   .got = describe(value),
                   .wanted = "true, false, 1 or 0"});
    }
    builder.set_loss(value.is_boolean() ? value.get<bool>() : value == 1);
    return;
  }
}

// Fields that say more than the text does. Others, such as "name", chat templates don't show.
void check_fields(const Json& message, const std::string& where) {
  for (const char* key :
       {"tool_calls", "function_call", "audio", "refusal", "images", "image", "videos", "video"}) {
    if (!message.contains(key) || is_blank(message[key])) continue;
    throw Error({.what = concat("unsupported field '", key, "' of a message"),
                 .where = where,
                 .got = describe(message[key]),
                 .hint = "pictures and clips stand in content parts, or in columns of the row"});
  }
}

void add_message(ConversationBuilder& builder, const Json& message) {
  const std::string& where = builder.where();
  builder.open(require_text(message, "role", where));
  check_fields(message, where);
  if (!has(message, "content")) {
    throw Error({.what = "message without content",
                 .where = where,
                 .got = describe(message),
                 .wanted = "content"});
  }
  const Json& content = message["content"];
  if (content.is_string()) {
    builder.add_plain_text(content.get<std::string>());
  } else if (content.is_array()) {
    for (const Json& part : content) add_part(builder, part);
  } else {
    throw wrong_type(where + ": content", content, "text or a list of parts");
  }
  read_loss(builder, message);
}

}  // namespace

const std::string& require_text(const Json& object, const char* key, const std::string& where) {
  if (!object.is_object() || !has(object, key)) {
    throw Error({.what = concat("no '", key, "'"),
                 .where = where,
                 .got = describe(object),
                 .wanted = concat("an object with '", key, "'")});
  }
  if (object[key].is_string()) return object[key].get_ref<const std::string&>();
  throw wrong_type(concat(where, ": ", key), object[key], "string");
}

void add_turn(ConversationBuilder& builder, const Json& turn) {
  if (turn.is_object() && has(turn, "role")) return add_message(builder, turn);
  const std::string& where = builder.where();
  builder.open(require_text(turn, "from", where));
  check_fields(turn, where);
  builder.add_plain_text(require_text(turn, "value", where));
  read_loss(builder, turn);
}

void add_messages(ConversationBuilder& builder, const Json& messages, const std::string& name) {
  if (!messages.is_array() || messages.empty()) {
    throw Error({.what = "no " + name,
                 .where = builder.where(),
                 .got = describe(messages),
                 .wanted = concat("an object with a list '", name, "'")});
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    builder.set_place(concat(name, "[", i, "]"));
    add_message(builder, messages[i]);
  }
  builder.set_place("");
}

}  // namespace vlm::data
