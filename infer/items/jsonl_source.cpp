#include "infer/items/jsonl_source.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <tuple>

#include "data/conversations/columns.h"
#include "data/conversations/conversation_builder.h"
#include "data/conversations/question.h"
#include "data/formats/jsonl_file.h"
#include "infer/items/messages.h"
#include "infer/items/openai_request.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::array kMediaFields = {"image", "images", "video", "videos"};

template <typename AnyJson>
bool has(const AnyJson& row, const char* key) {
  return row.is_object() && row.contains(key) && !row[key].is_null();
}

// What the row says about its media, and nothing else of it.
struct MediaMention {
  std::uint64_t digest = 0;
  bool has_video = false;
};

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

MediaMention mentioned_media(const Json& row) {
  ListDigest digest;
  bool has_video = has(row, "video") || has(row, "videos");
  for (const char* key : kMediaFields) {
    if (!has(row, key)) continue;
    digest.add(key);
    digest.add(dump(row[key]));
  }
  const Json& asked = has(row, "body") ? row["body"] : row;
  if (!has(asked, "messages") || !asked["messages"].is_array()) {
    return {digest.value(), has_video};
  }
  for (const Json& message : asked["messages"]) {
    if (!has(message, "content")) continue;
    for (const Json& part : message["content"]) {
      const Json type = part.is_object() ? part.value("type", Json()) : Json("text");
      if (type == "text") continue;
      digest.add(dump(part));
      has_video = has_video || type == "video" || type == "video_url";
    }
  }
  return {digest.value(), has_video};
}

template <typename AnyJson>
const char* id_key(const AnyJson& row) {
  return has(row, "id") ? "id" : has(row, "custom_id") ? "custom_id" : nullptr;
}

std::string read_id(const Json& id, const std::string& where) {
  if (id.is_string()) return id.get<std::string>();
  if (id.is_number_integer()) return id.dump();
  throw Error({.what = "wrong type",
               .where = where,
               .got = describe(id),
               .wanted = "a string or a whole number"});
}

// What is asked, and what a row of a JSONL file has besides; the rest are columns.
bool is_question_field(const std::string& key) {
  return key == "question" || key == "prompt" || key == "messages";
}

bool is_media_field(const std::string& key) {
  return std::find(kMediaFields.begin(), kMediaFields.end(), key) != kMediaFields.end();
}

bool is_own_field(const std::string& key) {
  return is_question_field(key) || key == "id" || key == "custom_id" || is_media_field(key);
}

std::vector<MediaRef> read_media(const OrderedJson& row, const MediaRoot& root) {
  for (const std::string name : {"image", "video"}) {
    if (has(row, name.c_str()) && has(row, (name + "s").c_str())) {
      throw Error({.what = concat("both '", name, "' and '", name, "s'"), .wanted = "one of them"});
    }
  }
  std::vector<MediaRef> media;
  for (const auto& [key, value] : row.items()) {
    if (!is_media_field(key)) continue;
    const bool is_video = key.starts_with("video");
    const auto read = data::read_media(is_video ? MediaKind::kVideo : MediaKind::kPicture,
                                       Json(value), {.root = root}, key);
    media.insert(media.end(), read.begin(), read.end());
  }
  return media;
}

// The columns of a row that asks by itself which belong to what it asks: as in training.
void read_question(const OrderedJson& row, Entry& entry) {
  const char* key = has(row, "question") ? "question" : has(row, "prompt") ? "prompt" : nullptr;
  if (!key) return;
  if (has(row, "messages")) {
    throw Error({.what = concat("both 'messages' and '", key, "'"), .wanted = "one of them"});
  }
  data::Row asked{.columns = Json::object(), .where = "columns"};
  for (const char* name : {"question", "prompt", "context", "hint", "input", "choices", "options",
                           "system", "history", "tools"}) {
    if (has(row, name)) asked.columns[name] = row[name];
  }
  const data::DataOptions options;
  const data::Columns columns(asked, options);
  entry.question = data::ask_columns(columns);
  if (!entry.question) entry.question = "";
  entry.system = columns.text("system");
  for (const char* name : {"history", "tools"}) {
    if (!columns.has(name)) continue;
    throw Error({.what = concat("column '", name, "' can't be used beside '", key, "'"),
                 .got = describe(*columns.find(name)),
                 .hint = "turns are written as 'messages'"});
  }
}

void read_conversation(const OrderedJson& row, const MediaRoot& root, Entry& entry) {
  read_question(row, entry);
  if (!has(row, "messages")) return;
  ItemConversation conversation = parse_messages(row["messages"], std::move(entry.media), root);
  entry.messages = std::move(conversation.messages);
  entry.media = std::move(conversation.media);
}

Entry parse_row(const OrderedJson& row, const MediaRoot& root) {
  if (is_openai_request(row)) {
    return parse_openai_request(row, {.folder = root.folder, .is_confined = true});
  }
  Entry entry{.media = read_media(row, root)};
  for (const auto& [key, value] : row.items()) {
    if (!is_own_field(key)) entry.columns[key] = value;
  }
  read_conversation(row, root, entry);
  if (entry.media.empty() && entry.messages.empty() && !entry.question) {
    throw Error({.what = "a row without picture, video and question",
                 .wanted = "'image', 'images', 'video', 'videos', 'question', 'prompt' or "
                           "'messages'"});
  }
  return entry;
}

class JsonlSource : public EntrySource {
 public:
  JsonlSource(const std::string& path, IdCheck& ids)
      : path_(path),
        root_{.folder = std::filesystem::path(path).parent_path()},
        file_(path, [&](std::string_view line, std::int64_t number) { add(line, number, ids); }) {
    if (size() == 0) throw Error({.what = "no rows in the file", .where = path});
    if (!has_rows_) throw Error({.what = "no rows in the file", .where = path, .got = at(0).error});
  }

  std::int64_t size() const override { return file_.size(); }

  Entry at(std::int64_t index) const override {
    const std::string place = place_of(file_.number(index));
    Entry entry;
    std::string id = place;
    try {
      const OrderedJson row = parse_ordered_json(file_.text(index), place, Numbers::kAsWritten);
      if (!row.is_object()) throw not_a_row(Json(row));
      if (const char* key = id_key(row)) id = read_id(Json(row[key]), key);
      entry = parse_row(row, root_);
    } catch (const Error& error) {
      const bool is_placed = error.parts().where.starts_with(place);
      entry = {.error = is_placed ? error.what() : located(error, place).what()};
    } catch (const Json::exception& error) {  // a type that no reader looked at
      const Error malformed({.what = "malformed row", .where = place, .got = error.what()});
      entry = {.error = malformed.what()};
    }
    entry.id = id;
    if (!entry.media.empty() && entry.media[0].is_file()) entry.path = entry.media[0].name;
    return entry;
  }

  bool shares_media(std::int64_t index) const override {
    return shares_.at(static_cast<std::size_t>(index));
  }

  std::vector<std::string> columns() const override { return columns_; }
  bool asks() const override { return asks_; }
  bool shows_videos() const override { return shows_videos_; }

  std::vector<std::string> files() const override { return {path_}; }

  void add_to(ListDigest& digest) const override { digest.add(digest_.value()); }

 private:
  std::string place_of(std::int64_t number) const {
    return concat(escape_bytes(path_), ":", number);
  }

  static Error not_a_row(const Json& row) {
    return Error({.what = "not a row", .got = describe(row), .wanted = "an object"});
  }

  // A line of the file, while that is opened. One that can't be read is an error of its own row.
  void add(std::string_view line, std::int64_t number, IdCheck& ids) {
    digest_.add(line);
    MediaMention media;
    try {
      const Json row = parse_json(line, place_of(number), Numbers::kAsWritten);
      if (!row.is_object()) throw not_a_row(row);
      if (const char* key = id_key(row)) ids.add(read_id(row[key], key), path_, number);
      collect_columns(row);
      media = mentioned_media(row);
      has_rows_ = true;
    } catch (const Error&) {
      media.digest = digest_.value();  // shared with nobody
    }
    shares_.push_back(!shares_.empty() && media.digest == media_before_);
    media_before_ = media.digest;
    shows_videos_ = shows_videos_ || media.has_video;
  }

  void collect_columns(const Json& row) {
    if (is_openai_request(row)) {
      asks_ = true;
      return add_column("model");
    }
    for (const auto& [key, value] : row.items()) {
      asks_ = asks_ || (is_question_field(key) && !value.is_null());
      if (!is_own_field(key)) add_column(key);
    }
  }

  void add_column(const std::string& name) {
    if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) {
      columns_.push_back(name);
    }
  }

  const std::string path_;
  const MediaRoot root_;
  ListDigest digest_;  // of all lines
  std::uint64_t media_before_ = 0;
  std::vector<bool> shares_;
  std::vector<std::string> columns_;
  bool has_rows_ = false, asks_ = false, shows_videos_ = false;
  data::JsonlFile file_;  // the last: opening it fills the others
};

}  // namespace

Entry parse_sample_row(const OrderedJson& row, std::vector<MediaRef> media) {
  Entry entry{.media = std::move(media)};
  for (const auto& [key, value] : row.items()) {
    if (!is_question_field(key)) entry.columns[key] = value;
  }
  read_conversation(row, {}, entry);
  return entry;
}

void IdCheck::add(const std::string& id, const std::string& file, std::int64_t line) {
  if (files_.empty() || files_.back() != file) files_.push_back(file);
  places_.push_back({digest_of(id), static_cast<std::uint32_t>(files_.size() - 1),
                     static_cast<std::uint32_t>(line)});
}

void IdCheck::check() {
  std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) {
    return std::tie(a.digest, a.file, a.line) < std::tie(b.digest, b.file, b.line);
  });
  for (std::size_t i = 1; i < places_.size(); ++i) {
    const Place &first = places_[i - 1], &second = places_[i];
    if (first.digest != second.digest) continue;
    throw Error({.what = "id given twice",
                 .where = concat(files_[second.file], ":", second.line),
                 .hint = concat("the same id as ", files_[first.file], ":", first.line)});
  }
  places_ = {};
}

std::unique_ptr<EntrySource> open_jsonl_source(const std::string& path, IdCheck& ids) {
  return std::make_unique<JsonlSource>(path, ids);
}

}  // namespace vlm::infer
