#include "infer/items/messages.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

Error wrong_type(const std::string& where, const OrderedJson& got, const std::string& wanted) {
  return Error(
      {.what = "wrong type", .where = where, .got = describe(Json(got)), .wanted = wanted});
}

const std::string& require_string(const OrderedJson& object, const char* key,
                                  const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) throw Error({.what = concat("no '", key, "'"), .where = where});
  if (!found->is_string()) throw wrong_type(concat(where, ": ", key), *found, "string");
  return found->get_ref<const std::string&>();
}

const char* plural(MediaKind kind) {
  return kind == MediaKind::kVideo ? "videos" : "pictures";
}

// Reads parts, and hands out the row's media to parts that name none.
class ConversationParser {
 public:
  ConversationParser(std::vector<MediaRef> media, const MediaRoot& root)
      : column_(std::move(media)), root_(root) {}

  void add(const OrderedJson& json, const std::string& where) {
    if (!json.is_object()) throw wrong_type(where, json, "an object");
    Message message{.role = require_string(json, "role", where)};
    if (message.role != "user" && message.role != "assistant" && message.role != "system") {
      throw Error({.what = "unknown role",
                   .where = where,
                   .got = concat("'", message.role, "'"),
                   .wanted = "user, assistant or system"});
    }
    const auto content = json.find("content");
    if (content == json.end()) throw Error({.what = "no 'content'", .where = where});
    if (content->is_string()) {
      has_plain_text_ = true;
      message.content.push_back({.type = "text", .text = content->get<std::string>()});
    } else if (content->is_array()) {
      for (const OrderedJson& part : *content) message.content.push_back(parse_part(part, where));
    } else {
      throw wrong_type(where + ": content", *content, "text or a list of parts");
    }
    result_.messages.push_back(std::move(message));
  }

  Conversation finish() {
    if (result_.media.empty() && has_plain_text_) put_media_first();
    for (const MediaKind kind : {MediaKind::kPicture, MediaKind::kVideo}) {
      if (used(kind) == column(kind).size()) continue;
      throw Error({.what = concat(part_type(kind), " parts don't fit the row's ", plural(kind)),
                   .got = concat(used(kind), " parts"),
                   .wanted = concat(column(kind).size())});
    }
    if (result_.messages.empty() || result_.messages.back().role != "user") {
      throw Error({.what = "the conversation doesn't end with a user's turn"});
    }
    return std::move(result_);
  }

 private:
  ContentPart parse_part(const OrderedJson& part, const std::string& where) {
    if (!part.is_object()) throw wrong_type(where + ": content", part, "parts that are objects");
    const std::string& type = require_string(part, "type", where);
    if (type == "text") return {.type = type, .text = require_string(part, "text", where)};
    const bool is_video = type == "video" || type == "video_url";
    const MediaKind kind = is_video ? MediaKind::kVideo : MediaKind::kPicture;
    if (type == "image_url" || type == "video_url") {
      add_url(kind, type, part, where);
    } else if (type == "image" || type == "video") {
      add_part(kind, part, where);
    } else {
      throw Error({.what = "unknown content part",
                   .where = where,
                   .got = concat("'", type, "'"),
                   .wanted = "text, image, image_url, video or video_url"});
    }
    return {.type = part_type(kind)};
  }

  void add_url(MediaKind kind, const std::string& key, const OrderedJson& part,
               const std::string& where) {
    const auto url = part.find(key);
    if (url == part.end()) throw Error({.what = concat("no '", key, "'"), .where = where});
    if (url->is_string()) return add(kind, url->get<std::string>());
    if (!url->is_object()) {
      throw wrong_type(concat(where, ": ", key), *url, "an object with 'url'");
    }
    const std::string detail = url->value("detail", "auto");
    if (detail != "auto" && detail != "high") {
      throw Error({.what = "unsupported detail of a picture",
                   .where = where,
                   .got = detail,
                   .wanted = "auto or high: pictures are always seen in full"});
    }
    add(kind, require_string(*url, "url", where));
  }

  void add_part(MediaKind kind, const OrderedJson& part, const std::string& where) {
    for (const char* key : {"path", part_type(kind), "url"}) {
      if (part.contains(key) && !part[key].is_null()) {
        return add(kind, require_string(part, key, where));
      }
    }
    const std::vector<MediaRef> own = column(kind);
    if (used(kind) >= own.size()) {
      throw Error(
          {.what = concat("more ", part_type(kind), " parts than ", plural(kind), " in the row"),
           .where = where,
           .got = concat(own.size(), " ", plural(kind))});
    }
    result_.media.push_back(own[used(kind)++]);
  }

  void add(MediaKind kind, const std::string& reference) {
    result_.media.push_back(data::resolve_medium(reference, root_, kind));
  }

  void put_media_first() {
    for (Message& message : result_.messages) {
      if (message.role != "user") continue;
      std::vector<ContentPart> parts;
      for (const MediaRef& medium : column_) {
        parts.push_back({.type = part_type(medium.kind)});
        ++used(medium.kind);
      }
      message.content.insert(message.content.begin(), parts.begin(), parts.end());
      result_.media = column_;
      return;
    }
  }

  // The row's media of one kind, and how many of them parts have taken.
  std::vector<MediaRef> column(MediaKind kind) const {
    std::vector<MediaRef> own;
    std::copy_if(column_.begin(), column_.end(), std::back_inserter(own),
                 [&](const MediaRef& medium) { return medium.kind == kind; });
    return own;
  }
  std::size_t& used(MediaKind kind) { return used_[kind == MediaKind::kVideo ? 1 : 0]; }

  std::vector<MediaRef> column_;
  const MediaRoot& root_;
  Conversation result_;
  std::array<std::size_t, 2> used_ = {};
  bool has_plain_text_ = false;
};

}  // namespace

Conversation parse_messages(const OrderedJson& messages, std::vector<MediaRef> media,
                            const MediaRoot& root) {
  if (!messages.is_array()) throw wrong_type("messages", messages, "a list");
  ConversationParser parser(std::move(media), root);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    parser.add(messages[i], concat("messages[", i, "]"));
  }
  return parser.finish();
}

}  // namespace vlm::infer
