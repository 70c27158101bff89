#include "data/formats/row_format.h"

#include "data/formats/columns.h"
#include "data/formats/conversation_builder.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

const std::string& require_string(const Json& object, const char* key, const std::string& where) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end()) {
    throw Error({.what = concat("no '", key, "'"),
                 .where = where,
                 .got = describe(object),
                 .wanted = concat("an object with '", key, "'")});
  }
  if (found->is_string()) return found->get_ref<const std::string&>();
  throw Error({.what = "wrong type",
               .where = concat(where, ": ", key),
               .got = describe(*found),
               .wanted = "string"});
}

// OpenAI's {"type": "image_url", "image_url": {"url", "detail"}}, or the URL alone.
void add_image_url(ConversationBuilder& builder, const Json& part) {
  const auto url = part.find("image_url");
  if (url == part.end()) throw Error({.what = "no 'image_url'", .where = builder.where()});
  if (url->is_string()) return builder.add_medium(MediaKind::kPicture, url->get<std::string>());
  const std::string where = builder.where() + ": image_url";
  const std::string& address = require_string(*url, "url", where);
  if (url->contains("detail")) {
    const Json& detail = (*url)["detail"];
    if (detail != "auto" && detail != "high") {
      throw Error({.what = "unsupported detail of a picture",
                   .where = where,
                   .got = describe(detail),
                   .wanted = "auto or high: pictures are always seen in full"});
    }
  }
  builder.add_medium(MediaKind::kPicture, address);
}

void add_part(ConversationBuilder& builder, const Json& part) {
  const std::string& type = require_string(part, "type", builder.where());
  if (type == "text") return builder.add_part_text(require_string(part, "text", builder.where()));
  if (type == "image") return builder.add_media_part(MediaKind::kPicture, part);
  if (type == "video") return builder.add_media_part(MediaKind::kVideo, part);
  if (type == "image_url") return add_image_url(builder, part);
  throw Error({.what = "unknown content part",
               .where = builder.where(),
               .got = concat("'", type, "'"),
               .wanted = "text, image, image_url or video"});
}

// Whether the message is learned: "loss", axolotl's "train" and "training", OpenAI's "weight".
void read_loss(ConversationBuilder& builder, const Json& message) {
  for (const char* key : {"loss", "train", "training", "weight"}) {
    const auto found = message.find(key);
    if (found == message.end() || found->is_null()) continue;
    if (!found->is_boolean() && *found != 0 && *found != 1) {
      throw Error({.what = "wrong value",
                   .where = concat(builder.where(), ": ", key),
                   .got = describe(*found),
                   .wanted = "true, false, 1 or 0"});
    }
    builder.set_loss(found->is_boolean() ? found->get<bool>() : *found == 1);
    return;
  }
}

void add_message(ConversationBuilder& builder, const Json& message) {
  const std::string& where = builder.where();
  builder.open(require_string(message, "role", where));
  const auto content = message.find("content");
  if (content == message.end()) {
    throw Error({.what = "message without content",
                 .where = where,
                 .got = describe(message),
                 .wanted = "content"});
  }
  if (content->is_string()) {
    builder.add_plain_text(content->get<std::string>());
  } else if (content->is_array()) {
    for (const Json& part : *content) add_part(builder, part);
  } else {
    throw Error({.what = "wrong type",
                 .where = where + ": content",
                 .got = describe(*content),
                 .wanted = "text or a list of parts"});
  }
  read_loss(builder, message);
}

void add_messages(ConversationBuilder& builder, const Columns& columns, const char* name) {
  const Json* messages = columns.find(name);
  if (!messages || !messages->is_array() || messages->empty()) {
    columns.fail(concat("no ", name), messages ? *messages : columns.row().columns,
                 concat("an object with a list '", name, "'"));
  }
  for (const Json& message : *messages) add_message(builder, message);
}

// A text is one turn of `role`.
void add_turns(ConversationBuilder& builder, const Columns& columns, const char* name,
               const char* role) {
  const Json* value = columns.find(name);
  if (value && value->is_array()) return add_messages(builder, columns, name);
  if (!value || !value->is_string()) {
    columns.fail(concat("no ", name), value ? *value : columns.row().columns,
                 "a text or a list of messages");
  }
  builder.open(role);
  builder.add_plain_text(value->get<std::string>());
}

void add_system(ConversationBuilder& builder, const Columns& columns) {
  const std::string system = columns.text("system");
  if (system.empty()) return;
  builder.open("system");
  builder.add_part_text(system);
}

Sample parse_messages(const Columns& columns) {
  ConversationBuilder builder(columns);
  add_messages(builder, columns, "messages");
  return builder.finish();
}

Sample parse_prompt_completion(const Columns& columns) {
  ConversationBuilder builder(columns);
  add_turns(builder, columns, "prompt", "user");
  builder.begin_completion();
  add_turns(builder, columns, "completion", "assistant");
  return builder.finish();
}

Sample parse_conversations(const Columns& columns) {
  ConversationBuilder builder(columns);
  const Json* turns = columns.find("conversations");
  if (!turns || !turns->is_array() || turns->empty()) {
    columns.fail("no conversations", turns ? *turns : columns.row().columns,
                 "an object with a list 'conversations'");
  }
  add_system(builder, columns);
  for (const Json& turn : *turns) {
    if (turn.is_object() && turn.contains("role")) {
      add_message(builder, turn);
      continue;
    }
    builder.open(require_string(turn, "from", builder.where()));
    builder.add_plain_text(require_string(turn, "value", builder.where()));
    read_loss(builder, turn);
  }
  return builder.finish();
}

Sample parse_query_response(const Columns& columns) {
  const Json* response = columns.find("response");
  if (!response || (response->is_array() && response->empty())) {
    columns.fail("no answer", response ? *response : columns.row().columns,
                 concat("a column '", columns.options().text_column, "', or a field_map"));
  }
  ConversationBuilder builder(columns);
  add_system(builder, columns);
  const bool has_query = columns.find("query") != nullptr;
  const std::string query = has_query ? columns.text("query") : columns.options().prompt;
  builder.open("user");
  builder.add_plain_text(query);
  builder.open("assistant");
  builder.add_part_text(columns.text("response"));
  Sample sample = builder.finish();
  if (!has_query && sample.media.empty()) {
    columns.fail("neither a question nor a picture", columns.row().columns,
                 "a column 'query', 'question', 'images' or 'file_name', or a field_map");
  }
  if (response->is_array()) {
    for (const Json& one : *response) {
      sample.references.push_back(text_of(one, columns.row().where + ": response"));
    }
  }
  return sample;
}

}  // namespace

const std::vector<std::string>& row_formats() {
  static const std::vector<std::string> formats = {"auto", "messages", "prompt_completion",
                                                   "conversations", "query_response"};
  return formats;
}

std::string detect_format(const Row& row, const DataOptions& options) {
  const Columns columns(row, options);
  if (columns.find("messages")) return "messages";
  if (columns.find("conversations")) return "conversations";
  if (columns.find("prompt") && columns.find("completion")) return "prompt_completion";
  if (columns.find("response")) return "query_response";
  std::vector<std::string> there;
  for (const auto& [column, value] : row.columns.items()) there.push_back(column);
  throw Error({.what = "a row of no known format",
               .where = row.where,
               .got = concat("columns ", join(there)),
               .wanted = concat("messages, conversations, prompt and completion, or an answer in '",
                                options.text_column, "'"),
               .hint = "field_map names other columns"});
}

Sample parse_row(const Row& row, const DataOptions& options) {
  if (!row.columns.is_object()) {
    throw Error({.what = "not a row",
                 .where = row.where,
                 .got = describe(row.columns),
                 .wanted = "an object"});
  }
  const Columns columns(row, options);
  const std::string format =
      options.format == "auto" ? detect_format(row, options) : options.format;
  Sample sample = format == "messages"            ? parse_messages(columns)
                  : format == "prompt_completion" ? parse_prompt_completion(columns)
                  : format == "conversations"     ? parse_conversations(columns)
                                                  : parse_query_response(columns);
  if (const Json* references = columns.find("references")) {
    if (!references->is_array()) columns.fail("wrong type", *references, "a list 'references'");
    sample.references.clear();
    for (const Json& one : *references) {
      sample.references.push_back(text_of(one, row.where + ": references"));
    }
  }
  return sample;
}

}  // namespace vlm::data
