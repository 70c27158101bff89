#include "infer/items/row_entry.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "data/conversations/columns.h"
#include "data/conversations/conversation_builder.h"
#include "data/conversations/row_format.h"
#include "infer/items/openai_request.h"
#include "infer/structured/answer_rule.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"

namespace vlm::infer {
namespace {

constexpr std::array kMediaFields = {"image", "images", "video", "videos"};
constexpr std::array kQuestionFields = {"question", "prompt", "messages"};

template <typename AnyJson>
bool has(const AnyJson& row, const std::string& key) {
  return row.is_object() && row.contains(key) && !row[key].is_null();
}

bool holds(const auto& names, const std::string& name) {
  return std::any_of(names.begin(), names.end(), [&](const char* known) { return name == known; });
}

// The column that names the row; "": none does.
std::string id_key(const data::Row& row, const RowOptions& options) {
  if (!row.columns.is_object() || options.id_column == "") return "";
  if (!options.id_column) {
    return has(row.columns, "id") ? "id" : has(row.columns, "custom_id") ? "custom_id" : "";
  }
  if (row.columns.contains(*options.id_column)) return *options.id_column;
  throw Error({.what = concat("no column '", *options.id_column, "'"),
               .where = row.where,
               .hint = "--id-column says that it names the row"});
}

// What an entry says by itself isn't a column. The members of a tar are its pictures, whatever its
// columns say, and its name is the tar's.
bool is_own_field(const std::string& key, bool is_in_tar, const RowOptions& options) {
  if (holds(kQuestionFields, key) || is_rule_name(key)) return true;
  if (is_in_tar) return false;
  const bool is_usual_id = !options.id_column && (key == "id" || key == "custom_id");
  return is_usual_id || key == options.id_column || holds(kMediaFields, key);
}

void check_media_columns(const data::Row& row) {
  const auto says = [&](const std::string& name) {
    return row.columns.contains(name) && !data::is_blank(row.columns[name]);
  };
  for (const std::string name : {"image", "video"}) {
    if (!says(name) || !says(name + "s")) continue;
    throw Error({.what = concat("both '", name, "' and '", name, "s'"),
                 .where = row.where,
                 .wanted = "one of them"});
  }
}

// True when the row names clips in front of pictures.
bool names_clips_first(const data::Columns& columns, const OrderedJson& outline) {
  const std::string clips = columns.column("videos"), pictures = columns.column("images");
  for (const auto& [name, value] : outline.items()) {
    if (name == pictures) return false;
    if (name == clips) return true;
  }
  return false;
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Parts of messages that are no text.
void add_parts(const Json& messages, ListDigest& digest, bool& has_video) {
  if (!messages.is_array()) return;
  for (const Json& message : messages) {
    if (!has(message, "content")) continue;
    for (const Json& part : message["content"]) {
      const Json type = part.is_object() ? part.value("type", Json()) : Json("text");
      if (type == "text") continue;
      digest.add(dump(part));
      has_video = has_video || type == "video" || type == "video_url";
    }
  }
}

bool asks(const data::Columns& columns) {
  const auto says = [&](const char* name) { return columns.has(name); };
  constexpr std::array kAsking = {"query", "input", "messages", "conversations", "texts"};
  return std::any_of(kAsking.begin(), kAsking.end(), says);
}

}  // namespace

std::string read_row_id(const data::Row& row, const RowOptions& options) {
  const std::string key = id_key(row, options);
  if (key.empty() || row.columns[key].is_null()) return "";
  const Json& id = row.columns[key];
  if (id.is_string()) return id.get<std::string>();
  if (id.is_number_integer()) return id.dump();
  throw Error({.what = "wrong type",
               .where = concat(row.where, ": ", key),
               .got = describe(id),
               .wanted = "a string or a whole number"});
}

Entry read_row(const data::Row& row, const OrderedJson& outline, const RowOptions& options) {
  data::check_row(row);
  if (is_openai_request(row.columns)) {
    return parse_openai_request(outline, {.folder = row.folder, .is_confined = true});
  }
  const bool is_in_tar = !row.members.empty();
  if (!is_in_tar && !options.data.field_map.contains("images")) check_media_columns(row);
  const data::Columns columns(row, options.data);
  data::RowRequest request =
      data::parse_request(row, options.data, names_clips_first(columns, outline));
  Entry entry{.media = std::move(request.sample.media),
              .question = std::move(request.question),
              .messages = std::move(request.sample.messages)};
  for (const auto& [key, value] : outline.items()) {
    if (!is_own_field(key, is_in_tar, options)) entry.columns[key] = value;
    if (!is_rule_name(key) || value.is_null()) continue;
    read_rule(key, value, concat(row.where, ": ", key));
    entry.overrides[key] = value;
  }
  if (entry.media.empty() && entry.messages.empty()) {
    throw Error({.what = "a row without picture, video and question",
                 .where = row.where,
                 .wanted = "'image', 'images', 'video', 'videos', 'question', 'prompt', "
                           "'messages' or columns that --field-map names"});
  }
  return entry;
}

data::Row outline_row(const data::RowSource& rows, std::int64_t index) {
  return {.columns = Json(rows.outline(index)), .where = rows.where(index), .folder = {}};
}

RowMention mention_of(const data::Row& row, const RowOptions& options) {
  const bool is_request = is_openai_request(row.columns), is_in_tar = !row.members.empty();
  const data::Columns columns(row, options.data);
  const Json& asked = is_request ? row.columns["body"] : row.columns;
  RowMention mention{.has_video = columns.has("videos"), .asks = is_request || asks(columns)};
  mention.has_rule = has(asked, kRuleNames[0]) || has(asked, kRuleNames[1]);
  ListDigest digest;
  std::set<std::string> media(kMediaFields.begin(), kMediaFields.end());
  for (const char* name : {"images", "videos"}) media.insert(columns.column(name));
  for (const std::string& column : media) {
    if (!has(row.columns, column)) continue;
    digest.add(column);
    digest.add(dump(row.columns[column]));
  }
  for (const MediaRef& member : row.members) digest.add(member.name);
  for (const char* name : {"messages", "conversations", "prompt"}) {
    if (has(asked, name)) add_parts(asked[name], digest, mention.has_video);
  }
  mention.media = digest.value();
  if (is_request) {
    mention.columns = {"model"};
    return mention;
  }
  for (const auto& [key, value] : row.columns.items()) {
    if (!is_own_field(key, is_in_tar, options)) mention.columns.push_back(key);
  }
  // In the order of a sample's members: .cls, .json, .txt.
  const auto place = [](const std::string& name) {
    return name == "cls" ? 0 : name == "txt" ? 2 : 1;
  };
  if (is_in_tar) std::ranges::stable_sort(mention.columns, {}, place);
  return mention;
}

}  // namespace vlm::infer
