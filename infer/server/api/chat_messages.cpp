#include "infer/server/api/chat_messages.h"

#include <nlohmann/json.hpp>

#include "infer/server/api/media_url.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

using data::MediaKind;

constexpr std::size_t kMostUuid = 256;

// Reads messages one after the other and counts what they hold.
class MessageReader {
 public:
  MessageReader(const ApiLimits& limits, ChatRequest& request)
      : limits_(limits), request_(request) {}

  void read(const OrderedJson& json, const std::string& place) {
    BodyReader message(json, place);
    const std::string role = message.text("role", 64).value_or("");
    refuse_calls(message);
    Message read{.role = known_role(role, message)};
    const OrderedJson* content = message.find("content");
    if (!content && role != "assistant") {
      throw missing_value(message.path("content"), "a text or a list of parts");
    }
    if (content && content->is_string()) {
      add_text(*content, message.path("content"), read);
    } else if (content && content->is_array()) {
      for (std::size_t i = 0; i < content->size(); ++i) {
        read_part((*content)[i], concat(message.path("content"), "[", i, "]"), read);
      }
    } else if (content) {
      throw bad_value(message.path("content"), *content, "a text or a list of parts");
    }
    if (read.content.empty()) read.content.push_back({.type = "text"});
    request_.messages.push_back(std::move(read));
  }

 private:
  static std::string known_role(const std::string& role, const BodyReader& message) {
    if (role == "developer") return "system";
    if (role == "system" || role == "user" || role == "assistant") return role;
    const bool is_tool = role == "tool" || role == "function";
    throw bad_value(message.path("role"), concat("'", shown(role), "'"),
                    "system, developer, user or assistant",
                    is_tool ? "this model calls no tools" : "");
  }

  static void refuse_calls(BodyReader& message) {
    for (const char* name : {"tool_calls", "function_call", "audio"}) {
      const OrderedJson* value = message.find(name);
      if (value && !value->empty()) {
        throw unsupported(message.path(name), "this model calls no tools and hears nothing");
      }
    }
  }

  void add_text(const std::string& text, const std::string& place, Message& message) {
    text_bytes_ += static_cast<std::int64_t>(text.size());
    if (text_bytes_ > limits_.max_text_bytes) {
      throw bad_value(place, concat(text_bytes_, " bytes of text"),
                      concat("at most ", limits_.max_text_bytes, " in a request"));
    }
    message.content.push_back({.type = "text", .text = text});
  }

  void read_part(const OrderedJson& json, const std::string& place, Message& message) {
    BodyReader part(json, place);
    const std::string type = part.text("type", 64).value_or("");
    if (type == "text" || type == "input_text" || type == "output_text") {
      const OrderedJson* text = part.find("text");
      if (!text || !text->is_string()) {
        throw bad_value(part.path("text"), text ? *text : OrderedJson(), "a text");
      }
      return add_text(*text, part.path("text"), message);
    }
    if (type == "image_url" || type == "input_image") {
      return read_medium(part, "image_url", MediaKind::kPicture, message);
    }
    if (type == "video_url" || type == "input_video") {
      return read_medium(part, type, MediaKind::kVideo, message);
    }
    throw bad_value(part.path("type"), concat("'", shown(type), "'"),
                    "text, image_url or video_url", "this model reads text, pictures and clips");
  }

  // The address stands in the field itself, or in its "url"; llama.cpp has "data" for clips.
  void read_medium(BodyReader& part, const std::string& field, MediaKind kind, Message& message) {
    count(kind, part);
    const std::string uuid = part.text("uuid", kMostUuid).value_or("");
    const OrderedJson* holder = part.find(field);
    if (!holder && !uuid.empty()) return recall(part, uuid, kind, message);
    if (!holder) throw missing_value(part.path(field), "an address");
    bool is_whole = reads_detail(part, kind);
    std::string param = part.path(field);
    const OrderedJson* url = holder;
    ClipPart shown_part;
    if (holder->is_object()) {
      BodyReader inside(*holder, param);
      is_whole = reads_detail(inside, kind) || is_whole;
      const char* name = inside.find("url") || kind == MediaKind::kPicture ? "url" : "data";
      url = inside.find(name);
      param = inside.path(name);
      if (kind == MediaKind::kVideo) shown_part = read_clip_part(inside);
    }
    if (!url || !url->is_string()) throw bad_value(param, url ? *url : OrderedJson(), "an address");
    data::MediaRef medium =
        read_media_url(url->get_ref<const std::string&>(), kind, param, limits_);
    if (is_network_url(url->get_ref<const std::string&>())) count_fetched(medium, param);
    if (!uuid.empty() && medium.bytes && limits_.known_media) {
      limits_.known_media->keep(limits_.media_owner, uuid, medium.bytes);
    }
    medium.is_whole = is_whole;
    message.content.push_back({.type = data::part_type(kind)});
    request_.media.push_back(
        {.medium = std::move(medium), .param = std::move(param), .part = std::move(shown_part)});
  }

  // Seconds: "times" to look at, or "start" and "end".
  ClipPart read_clip_part(BodyReader& holder) const {
    constexpr double kMostSeconds = 86'400;  // a day
    ClipPart part{.start_s = holder.number("start", 0, kMostSeconds),
                  .end_s = holder.number("end", 0, kMostSeconds)};
    const OrderedJson* times = holder.array("times");
    for (const OrderedJson& time : times ? *times : OrderedJson::array()) {
      const bool is_fine =
          time.is_number() && time >= 0.0 && time <= kMostSeconds && !part.start_s && !part.end_s;
      if (!is_fine) {
        throw bad_value(holder.path("times"), *times, "seconds, without start and end beside them");
      }
      part.times_s.push_back(time);
    }
    if (std::ssize(part.times_s) > limits_.max_frames) {
      throw bad_value(holder.path("times"), concat(part.times_s.size(), " times"),
                      concat("at most ", limits_.max_frames));
    }
    return part;
  }

  // One that an earlier request sent.
  void recall(BodyReader& part, const std::string& uuid, MediaKind kind, Message& message) {
    const std::string param = part.path("uuid");
    const bool is_whole = reads_detail(part, kind);
    const auto bytes =
        limits_.known_media ? limits_.known_media->find(limits_.media_owner, uuid) : nullptr;
    if (!bytes) {
      const bool is_clip = kind == MediaKind::kVideo;
      throw ApiError(
          {.code = is_clip ? "invalid_video" : "invalid_image", .param = param},
          {.what = "no medium is kept under this uuid", .hint = "send it again with its address"});
    }
    message.content.push_back({.type = data::part_type(kind)});
    request_.media.push_back(
        {.medium = {.kind = kind, .name = param, .bytes = bytes, .is_whole = is_whole},
         .param = param});
  }

  void count_fetched(const data::MediaRef& medium, const std::string& param) {
    fetched_bytes_ += std::ssize(*medium.bytes);
    if (fetched_bytes_ <= limits_.max_fetched_bytes) return;
    throw bad_value(param, concat(fetched_bytes_, " bytes from other hosts"),
                    concat("at most ", limits_.max_fetched_bytes, " in a request"));
  }

  // OpenAI's "detail": whether the picture is shown as one tile.
  static bool reads_detail(BodyReader& holder, MediaKind kind) {
    const std::string detail = holder.text("detail", 64).value_or("auto");
    if (detail == "auto" || detail == "high" || detail == "original") return false;
    if (detail == "low" && kind == MediaKind::kPicture) return true;
    throw bad_value(holder.path("detail"), concat("'", shown(detail), "'"), "low, high or auto");
  }

  void count(MediaKind kind, const BodyReader& part) {
    const bool is_clip = kind == MediaKind::kVideo;
    const std::int64_t most = is_clip ? limits_.max_clips : limits_.max_pictures;
    if (++(is_clip ? clips_ : pictures_) <= most) return;
    throw bad_value(part.path("type"),
                    concat(is_clip ? "clip " : "picture ", is_clip ? clips_ : pictures_),
                    concat("at most ", most, " in a request"));
  }

  const ApiLimits& limits_;
  ChatRequest& request_;
  std::int64_t pictures_ = 0, clips_ = 0, text_bytes_ = 0, fetched_bytes_ = 0;
};

}  // namespace

void read_messages(BodyReader& body, const std::string& name, const ApiLimits& limits,
                   ChatRequest& request) {
  const OrderedJson* messages = body.array(name);
  const std::string place = body.path(name);
  if (!messages || messages->empty()) {
    throw bad_value(place, messages ? *messages : OrderedJson(), "a list of messages");
  }
  if (static_cast<std::int64_t>(messages->size()) > limits.max_messages) {
    throw bad_value(place, concat(messages->size(), " messages"),
                    concat("at most ", limits.max_messages));
  }
  MessageReader reader(limits, request);
  for (std::size_t i = 0; i < messages->size(); ++i) {
    reader.read((*messages)[i], concat(place, "[", i, "]"));
  }
}

}  // namespace vlm::infer
