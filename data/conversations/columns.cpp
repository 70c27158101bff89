#include "data/conversations/columns.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/conversations/conversation_builder.h"
#include "data/media/media.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Our name, what files call it, and why a row with it can't be used when no format reads it: "" for
// what other columns may stand in for.
struct KnownColumn {
  std::string name;
  std::vector<std::string> usual;
  std::string reason = "";
};

const std::vector<KnownColumn>& known_columns() {
  const std::string asked = "it would change what is asked, and this format doesn't read it";
  const std::string tools = "tools are not supported";
  const std::string preference =
      "an answer to be avoided is not supported: every answer is learned";
  static const std::vector<KnownColumn> columns = {
      {"messages", {"messages"}},
      {"conversations", {"conversations"}},
      {"texts", {"texts"}},
      {"prompt", {"prompt"}},
      {"completion", {"completion"}},
      {"images",
       {"images", "image", "file_names", "file_name", "image_paths", "image_path", "image_file",
        "img", "img_path", "picture", "pictures"}},
      {"videos", {"videos", "video", "video_paths", "video_path"}},
      {"system", {"system", "system_prompt"}, asked},
      {"query", {"query", "question", "instruction", "prompt", "user"}},
      {"input", {"input"}, ""},
      {"context", {"context", "hint"}, ""},
      {"choices", {"choices", "options"}, ""},
      {"history", {"history"}, asked},
      {"response",
       {"response", "answer", "multiple_choice_answer", "output", "caption", "label", "assistant",
        "completion", "answers", "captions", "sentences", "txt", "cls"}},
      {"answers", {"answers", "captions", "sentences"}},
      {"references", {"references"}},
      {"task", {"task"}, ""},
      {"tools", {"tools", "functions"}, tools},
      {"chosen", {"chosen"}, preference},
      {"rejected",
       {"rejected", "rejected_response", "rejected_messages", "rejected_images"},
       preference},
      {"objects", {"objects"}, "places of objects in the text are not supported"},
      {"audios", {"audios", "audio"}, "sound is not supported"},
  };
  return columns;
}

const KnownColumn& known_column(const std::string& name) {
  const auto& columns = known_columns();
  return *std::find_if(columns.begin(), columns.end(),
                       [&](const KnownColumn& column) { return column.name == name; });
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Equal but for ASCII case.
bool is_same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

// A cell of nothing, or a list of nothing that a CSV holds as text.
bool says_nothing(const Json& value) {
  if (is_blank(value)) return true;
  if (!value.is_string()) return false;
  const auto text = trimmed(value.get_ref<const std::string&>());
  return text.empty() || text == "[]" || text == "{}" || text == "null";
}

// All right answers, beside the one to learn.
bool is_answer_list(const std::string& column) {
  return is_same_name(column, "answers") || is_same_name(column, "captions") ||
         is_same_name(column, "sentences");
}

// What tells two columns of one meaning apart: a text without space around it.
std::string essence(const Json& value) {
  if (value.is_array() && value.size() == 1) return essence(value.front());
  if (value.is_string()) return std::string(trimmed(value.get_ref<const std::string&>()));
  return is_any_number(value) ? number_text(value) : value.dump();
}

// A picture as Hugging Face's data sets hold it: {"bytes", "path"}, or its bytes alone.
bool is_media_value(const Json& value, bool may_be_path) {
  if (value.is_array()) return !value.empty() && is_media_value(value.front(), may_be_path);
  if (value.is_binary() && !is_any_number(value)) {
    const auto& bytes = value.get_binary();
    return is_picture_start({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  const auto says = [&](const char* key) { return value.contains(key) && !is_blank(value[key]); };
  return value.is_object() && (says("bytes") || (may_be_path && says("path")));
}

std::vector<std::string> names_of(const Json& columns) {
  std::vector<std::string> names;
  for (const auto& [column, value] : columns.items()) names.push_back(column);
  return names;
}

}  // namespace

const std::vector<std::string>& column_names() {
  static const auto names = [] {
    std::vector<std::string> list;
    for (const KnownColumn& column : known_columns()) list.push_back(column.name);
    return list;
  }();
  return names;
}

void Columns::fail(const std::string& what, const Json& got, const std::string& wanted) const {
  throw Error({.what = what, .where = row_.where, .got = describe(got), .wanted = wanted});
}

const Json* Columns::value_of(const std::string& column) const {
  const auto found = row_.columns.find(column);
  return found == row_.columns.end() || found->is_null() ? nullptr : &*found;
}

bool Columns::is_mapped(const std::string& column) const {
  return std::any_of(options_.field_map.begin(), options_.field_map.end(),
                     [&](const auto& entry) { return entry.second == column; });
}

Json::const_iterator Columns::column_called(const std::string& name) const {
  const Json& columns = row_.columns;
  const auto exact = columns.find(name);
  if (exact != columns.end()) return exact;
  for (auto column = columns.begin(); column != columns.end(); ++column) {
    if (is_same_name(column.key(), name)) return column;
  }
  return columns.end();
}

// The columns of the row that are usual for `name`, as they are written or in other case; those
// that say something hide those that don't. An answer may also stand in text_column: alone when the
// run names it, after the others when it is the usual "text".
std::vector<Columns::Found> Columns::usual(const std::string& name) const {
  std::vector<Found> found, empty;
  const bool is_named = options_.text_column != DataOptions().text_column;
  const auto add = [&](const std::string& wanted) {
    const auto it = column_called(wanted);
    if (it == row_.columns.end() || it->is_null() || is_mapped(it.key())) return;
    // Without a question, or as a number or flag, it is a class, or what people thought of the
    // answer.
    const bool is_text = it->is_string() || it->is_array();
    if (wanted == "label" && !is_named && !(is_text && has("query"))) return;
    (says_nothing(*it) ? empty : found).push_back({it.key(), &*it});
  };
  if (name != "response" || !is_named) {
    for (const std::string& wanted : known_column(name).usual) add(wanted);
  }
  // Alpaca's "text" is its instruction and output once more.
  const bool is_alpaca = value_of("instruction") && value_of("output");
  if (name == "response" && (is_named || !is_alpaca)) add(options_.text_column);
  return found.empty() ? empty : found;
}

const Json* Columns::find(const std::string& name) const {
  const auto mapped = options_.field_map.find(name);
  if (mapped != options_.field_map.end()) {
    if (mapped->second.empty()) return nullptr;
    read_.insert(mapped->second);
    if (const Json* value = value_of(mapped->second)) return value;
    throw Error({.what = concat("no column '", mapped->second, "'"),
                 .where = row_.where,
                 .got = concat("columns ", join(names_of(row_.columns))),
                 .hint = concat("field_map says that it is the ", name)});
  }
  const std::vector<Found> found = usual(name);
  if (found.empty()) return nullptr;
  // All right answers beside the one to learn, and where a picture's file came from.
  const bool is_media = name == "images" || name == "videos";
  const Found& first = found.front();
  for (const Found& candidate : found) {
    read_.insert(candidate.column);
    const bool is_list_of_it = name == "response" && is_answer_list(candidate.column);
    if (candidate.value == first.value || is_list_of_it || is_media) continue;
    if (essence(*candidate.value) == essence(*first.value)) continue;
    throw Error(
        {.what = concat("two columns for the ", name, " that differ"),
         .where = row_.where,
         .got = concat("'", first.column, "' and '", candidate.column, "'"),
         .hint = concat("say which it is: field_map {\"", name, "\": \"", first.column, "\"}")});
  }
  return first.value;
}

bool Columns::has(const std::string& name) const {
  const auto mapped = options_.field_map.find(name);
  if (mapped == options_.field_map.end()) {
    const std::vector<Found> found = usual(name);
    return !found.empty() && !says_nothing(*found.front().value);
  }
  return !mapped->second.empty() && value_of(mapped->second);
}

std::string Columns::column(const std::string& name) const {
  const auto mapped = options_.field_map.find(name);
  if (mapped != options_.field_map.end()) return value_of(mapped->second) ? mapped->second : "";
  const std::vector<Found> found = usual(name);
  return found.empty() ? "" : found.front().column;
}

std::string Columns::text(const std::string& name) const {
  const Json* value = find(name);
  if (!value) return "";
  if (value->is_array() && value->size() == 1) value = &value->front();
  // Of texts in several languages the English one.
  if (value->is_object() && value->contains("en")) value = &(*value)["en"];
  return text_of(*value, concat(row_.where, ": ", name));
}

void Columns::fail_unread(const std::string& column, const Json& value, const std::string& reason,
                          const std::string& name) const {
  throw Error({.what = concat("column '", column, "' can't be used"),
               .where = row_.where,
               .got = describe(value),
               .hint = concat(reason, "; field_map {\"", name, "\": null} leaves it out")});
}

void Columns::check_all_read(Use use) const {
  const bool is_learned = use == Use::kLearned;
  for (const KnownColumn& known : known_columns()) {
    if (known.reason.empty() || options_.field_map.contains(known.name)) continue;
    const bool is_preference = known.name == "chosen" || known.name == "rejected";
    if (use == Use::kShown || (is_preference && !is_learned)) continue;
    for (const Found& candidate : usual(known.name)) {
      if (read_.contains(candidate.column) || says_nothing(*candidate.value)) continue;
      fail_unread(candidate.column, *candidate.value, known.reason, known.name);
    }
  }
  for (const auto& [column, value] : row_.columns.items()) {
    const bool is_opinion = is_learned && is_same_name(column, "label") && value.is_boolean();
    if (is_opinion && !is_mapped(column) && !options_.field_map.contains("rejected")) {
      fail_unread(column, value, known_column("rejected").reason, "rejected");
    }
    const bool is_left_out = options_.field_map.contains("images") || !row_.members.empty();
    // Where rows are shown, what isn't read is shown as well, but for bytes.
    if (is_left_out || read_.contains(column) || !is_media_value(value, is_learned)) continue;
    fail_unread(column, value, "a picture or clip that no format reads", "images");
  }
}

std::string text_of(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (is_any_number(value)) return number_text(value);
  throw Error({.what = "wrong type", .where = where, .got = describe(value), .wanted = "text"});
}

}  // namespace vlm::data
