#include "data/jsonl_dataset.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

Error sample_error(const std::string& where, const std::string& what, const Json& got,
                   const std::string& wanted) {
  return Error({.what = what, .where = where, .got = describe(got), .wanted = wanted});
}

const std::string& require_string(const Json& object, const char* key, const std::string& where) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end()) {
    throw sample_error(where, concat("no '", key, "'"), object,
                       concat("an object with '", key, "'"));
  }
  if (!found->is_string()) throw sample_error(where + ": " + key, "wrong type", *found, "string");
  return found->get_ref<const std::string&>();
}

// The path of an entry of "images" or "videos": a string, or {"path": string}.
fs::path media_path(const Json& entry, const fs::path& folder, const std::string& where) {
  if (entry.is_string()) return folder / entry.get<std::string>();
  return folder / require_string(entry, "path", where);
}

// A kind of media: its parts, and the column that names the files of parts without a path.
struct MediaColumn {
  std::string type;  // "image" or "video"; the column is the plural
  std::vector<fs::path> paths = {};
  std::size_t used = 0;
};

MediaColumn parse_column(const Json& json, const std::string& type, const fs::path& folder,
                         const std::string& where) {
  MediaColumn column{.type = type};
  const std::string plural = type + "s";
  const auto entries = json.find(json.contains(plural) ? plural : type);
  if (entries == json.end() || entries->is_null()) return column;
  if (!entries->is_array()) {
    column.paths = {media_path(*entries, folder, where + ": " + type)};
    return column;
  }
  for (const Json& entry : *entries) {
    column.paths.push_back(media_path(entry, folder, where + ": " + plural));
  }
  return column;
}

// Collects messages and hands out the columns' entries to media parts that name no path.
class SampleParser {
 public:
  SampleParser(std::vector<MediaColumn> columns, fs::path folder, std::string where)
      : columns_(std::move(columns)), folder_(std::move(folder)), where_(std::move(where)) {}

  Message parse_message(const Json& json) {
    Message message{.role = require_string(json, "role", where_)};
    if (message.role != "user" && message.role != "assistant" && message.role != "system") {
      throw Error({.what = "unknown role",
                   .where = where_,
                   .got = concat("'", message.role, "'"),
                   .wanted = "user, assistant or system"});
    }
    const auto content = json.find("content");
    if (content == json.end())
      throw sample_error(where_, "message without content", json, "content");
    if (content->is_string()) {
      has_plain_text_ = true;
      message.content.push_back({.type = "text", .text = content->get<std::string>()});
    } else if (content->is_array()) {
      for (const Json& part : *content) message.content.push_back(parse_part(part));
    } else {
      throw sample_error(where_ + ": content", "wrong type", *content, "text or a list of parts");
    }
    return message;
  }

  void finish(Sample& sample) {
    if (paths_.empty() && has_plain_text_) put_media_first(sample);
    for (const MediaColumn& column : columns_) {
      if (column.used == column.paths.size()) continue;
      throw Error({.what = concat(column.type, " parts don't fit the '", column.type, "s' column"),
                   .where = where_,
                   .got = concat(column.used, " parts"),
                   .wanted = concat(column.paths.size())});
    }
    sample.images = std::move(paths_);
  }

 private:
  ContentPart parse_part(const Json& part) {
    const std::string& type = require_string(part, "type", where_);
    if (type == "text") return {.type = type, .text = require_string(part, "text", where_)};
    for (MediaColumn& column : columns_) {
      if (type == column.type) return parse_medium(part, column);
    }
    throw Error({.what = "unknown content part",
                 .where = where_,
                 .got = concat("'", type, "'"),
                 .wanted = "text, image or video"});
  }

  ContentPart parse_medium(const Json& part, MediaColumn& column) {
    for (const std::string& key : {std::string("path"), column.type}) {
      if (part.contains(key) && !part[key].is_null()) {
        paths_.push_back(folder_ / require_string(part, key.c_str(), where_));
        return {.type = column.type};
      }
    }
    if (column.used >= column.paths.size()) {
      throw Error(
          {.what = concat("more ", column.type, " parts than entries of '", column.type, "s'"),
           .where = where_,
           .got = concat(column.paths.size(), " entries")});
    }
    paths_.push_back(column.paths[column.used++]);
    return {.type = column.type};
  }

  // Pictures, then clips, before the first user turn's text.
  void put_media_first(Sample& sample) {
    for (Message& message : sample.messages) {
      if (message.role != "user") continue;
      std::vector<ContentPart> parts;
      for (MediaColumn& column : columns_) {
        parts.insert(parts.end(), column.paths.size(), {.type = column.type});
        paths_.insert(paths_.end(), column.paths.begin(), column.paths.end());
        column.used = column.paths.size();
      }
      message.content.insert(message.content.begin(), parts.begin(), parts.end());
      return;
    }
  }

  std::vector<MediaColumn> columns_;
  fs::path folder_;
  std::string where_;
  std::vector<fs::path> paths_;
  bool has_plain_text_ = false;
};

// The whole file in memory with the start of every line; lines are parsed when asked for.
class JsonlDataset : public Dataset {
 public:
  explicit JsonlDataset(const fs::path& path) : path_(path), text_(load_text(path, 1ULL << 34)) {
    std::string_view rest(text_);
    for (std::int64_t number = 1; !rest.empty(); ++number) {
      const auto end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
        lines_.push_back({line, number});
      }
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(lines_.size()); }

  Sample at(std::int64_t index) const override {
    const auto& [line, number] = lines_.at(static_cast<std::size_t>(index));
    const std::string where = concat(path_.string(), ":", number);
    return parse_sample(parse_json(line, where), path_.parent_path(), where);
  }

 private:
  fs::path path_;
  std::string text_;
  std::vector<std::pair<std::string_view, std::int64_t>> lines_;
};

}  // namespace

std::unique_ptr<Dataset> load_jsonl_dataset(const fs::path& path) {
  return std::make_unique<JsonlDataset>(path);
}

Sample parse_sample(const Json& json, const fs::path& folder, const std::string& where) {
  const auto messages = json.is_object() ? json.find("messages") : json.end();
  if (!json.is_object() || messages == json.end() || !messages->is_array() || messages->empty()) {
    throw sample_error(where, "no messages", json, "an object with a list 'messages'");
  }
  SampleParser parser(
      {parse_column(json, "image", folder, where), parse_column(json, "video", folder, where)},
      folder, where);
  Sample sample{.where = where};
  for (const Json& message : *messages) sample.messages.push_back(parser.parse_message(message));
  parser.finish(sample);
  return sample;
}

}  // namespace vlm::data
