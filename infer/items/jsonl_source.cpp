#include "infer/items/jsonl_source.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <tuple>

#include "data/formats/mapped_file.h"
#include "infer/items/messages.h"
#include "infer/items/openai_request.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::array kMediaFields = {"image", "images", "video", "videos"};

// What the row says about its media, and nothing else of it.
struct MediaMention {
  std::uint64_t digest = 0;
  bool has_video = false;
};

MediaMention mentioned_media(const Json& row) {
  Digest digest;
  bool has_video = row.contains("video") || row.contains("videos");
  for (const char* key : kMediaFields) {
    if (!row.contains(key)) continue;
    digest.add(key);
    digest.add(row[key].dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  const bool is_request = row.contains("body") && row["body"].is_object();
  const Json messages =
      is_request ? row["body"].value("messages", Json()) : row.value("messages", Json());
  if (!messages.is_array()) return {digest.value(), has_video};
  for (const Json& message : messages) {
    if (!message.is_object() || !message.contains("content")) continue;
    for (const Json& part : message["content"]) {
      if (part.is_object() && part.value("type", Json()) != "text") {
        digest.add(part.dump(-1, ' ', false, Json::error_handler_t::replace));
        const Json type = part.value("type", Json());
        has_video = has_video || type == "video" || type == "video_url";
      }
    }
  }
  return {digest.value(), has_video};
}

template <typename AnyJson>
const char* id_key(const AnyJson& row) {
  return row.contains("id") ? "id" : row.contains("custom_id") ? "custom_id" : nullptr;
}

template <typename AnyJson>
std::string read_id(const AnyJson& row, const std::string& where) {
  const char* key = id_key(row);
  if (!key) return where;
  if (row[key].is_string()) return row[key].template get<std::string>();
  if (row[key].is_number_integer()) return row[key].dump();
  throw Error({.what = "wrong type",
               .where = concat(where, ": ", key),
               .got = describe(Json(row[key])),
               .wanted = "a string or a whole number"});
}

// What is asked, and what a row of a JSONL file has besides; the rest are columns.
bool is_question_field(const std::string& key) {
  return key == "question" || key == "prompt" || key == "messages";
}

bool is_own_field(const std::string& key) {
  return is_question_field(key) || key == "id" || key == "custom_id" ||
         std::find(kMediaFields.begin(), kMediaFields.end(), key) != kMediaFields.end();
}

void read_media_field(const std::string& key, const OrderedJson& value, const MediaRoot& root,
                      std::vector<MediaRef>& media) {
  const bool is_video = key.starts_with("video");
  const OrderedJson list = value.is_array() ? value : OrderedJson::array({value});
  for (const OrderedJson& one : list) {
    const bool has_path = one.is_object() && one.contains("path");
    const OrderedJson& reference = has_path ? one["path"] : one;
    if (!reference.is_string()) {
      throw Error({.what = "wrong type",
                   .where = key,
                   .got = describe(Json(one)),
                   .wanted = is_video ? "a path" : "a path or a data URI"});
    }
    media.push_back(resolve_medium(reference.get<std::string>(), root,
                                   is_video ? MediaKind::kVideo : MediaKind::kPicture));
  }
}

std::vector<MediaRef> read_media(const OrderedJson& row, const MediaRoot& root) {
  for (const std::string name : {"image", "video"}) {
    if (row.contains(name) && row.contains(name + "s")) {
      throw Error({.what = concat("both '", name, "' and '", name, "s'"), .wanted = "one of them"});
    }
  }
  std::vector<MediaRef> media;
  for (const auto& [key, value] : row.items()) {
    const bool is_media =
        std::find(kMediaFields.begin(), kMediaFields.end(), key) != kMediaFields.end();
    if (is_media && !value.is_null()) read_media_field(key, value, root, media);
  }
  return media;
}

std::optional<std::string> read_question(const OrderedJson& row) {
  for (const char* key : {"question", "prompt"}) {
    if (!row.contains(key) || row[key].is_null()) continue;
    if (row.contains("messages")) {
      throw Error({.what = concat("both 'messages' and '", key, "'"), .wanted = "one of them"});
    }
    if (!row[key].is_string()) {
      throw Error({.what = "wrong type",
                   .where = key,
                   .got = describe(Json(row[key])),
                   .wanted = "string"});
    }
    return row[key].get<std::string>();
  }
  return std::nullopt;
}

void read_conversation(const OrderedJson& row, const MediaRoot& root, Entry& entry) {
  entry.question = read_question(row);
  if (row.contains("messages")) {
    Conversation conversation = parse_messages(row["messages"], std::move(entry.media), root);
    entry.messages = std::move(conversation.messages);
    entry.media = std::move(conversation.media);
  }
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
      : path_(path), file_(path), root_{.folder = std::filesystem::path(path).parent_path()} {
    std::string_view rest = file_.text();
    std::uint64_t media_before = 0;
    for (std::uint32_t number = 1; !rest.empty(); ++number) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
        const Json row = parse_line(line, number);
        if (id_key(row)) ids.add(read_id(row, place(number)), path_, number);
        collect_columns(row);
        const MediaMention media = mentioned_media(row);
        shares_.push_back(!lines_.empty() && media.digest == media_before);
        media_before = media.digest;
        shows_videos_ = shows_videos_ || media.has_video;
        lines_.push_back({static_cast<std::uint64_t>(line.data() - file_.text().data()),
                          static_cast<std::uint32_t>(line.size()), number});
      }
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (lines_.empty()) throw Error({.what = "no rows in the file", .where = path});
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(lines_.size()); }

  Entry at(std::int64_t index) const override {
    const Line& line = lines_.at(static_cast<std::size_t>(index));
    const OrderedJson row = OrderedJson::parse(file_.text().substr(line.begin, line.size));
    Entry entry;
    try {
      entry = parse_row(row, root_);
    } catch (const Error& error) {
      entry = {.error = located(error, place(line.number)).what()};
    }
    entry.id = read_id(row, place(line.number));
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

  void add_to(Digest& digest) const override { digest.add(file_.text()); }

 private:
  struct Line {
    std::uint64_t begin;
    std::uint32_t size, number;
  };

  std::string place(std::uint32_t number) const { return concat(escape_bytes(path_), ":", number); }

  Json parse_line(std::string_view line, std::uint32_t number) const {
    Json row = parse_json(line, place(number));
    if (row.is_object()) return row;
    throw Error(
        {.what = "not a row", .where = place(number), .got = describe(row), .wanted = "an object"});
  }

  void collect_columns(const Json& row) {
    if (row.contains("custom_id") && row.contains("body")) {
      asks_ = true;
      return add_column("model");
    }
    for (const auto& [key, value] : row.items()) {
      asks_ = asks_ || is_question_field(key);
      if (!is_own_field(key)) add_column(key);
    }
  }

  void add_column(const std::string& name) {
    if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) {
      columns_.push_back(name);
    }
  }

  std::string path_;
  data::MappedFile file_;
  MediaRoot root_;
  std::vector<Line> lines_;
  std::vector<bool> shares_;
  std::vector<std::string> columns_;
  bool asks_ = false;
  bool shows_videos_ = false;
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
