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

// The path of an entry of "images": a string, or {"path": string}.
fs::path image_path(const Json& entry, const fs::path& folder, const std::string& where) {
  if (entry.is_string()) return folder / entry.get<std::string>();
  return folder / require_string(entry, "path", where);
}

std::vector<fs::path> parse_images(const Json& json, const fs::path& folder,
                                   const std::string& where) {
  std::vector<fs::path> paths;
  const auto images = json.find(json.contains("images") ? "images" : "image");
  if (images == json.end() || images->is_null()) return paths;
  if (!images->is_array()) return {image_path(*images, folder, where + ": image")};
  for (const Json& entry : *images) paths.push_back(image_path(entry, folder, where + ": images"));
  return paths;
}

// Collects messages and hands out the "images" column to image parts that name no path.
class SampleParser {
 public:
  SampleParser(std::vector<fs::path> images, fs::path folder, std::string where)
      : column_(std::move(images)), folder_(std::move(folder)), where_(std::move(where)) {}

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
    if (next_ == 0 && paths_.empty() && has_plain_text_) put_images_first(sample);
    if (next_ != column_.size()) {
      throw Error({.what = "image parts don't fit the 'images' column",
                   .where = where_,
                   .got = concat(next_, " parts"),
                   .wanted = concat(column_.size())});
    }
    sample.images = std::move(paths_);
  }

 private:
  ContentPart parse_part(const Json& part) {
    const std::string& type = require_string(part, "type", where_);
    if (type == "text") return {.type = type, .text = require_string(part, "text", where_)};
    if (type != "image") {
      throw Error({.what = "unknown content part",
                   .where = where_,
                   .got = concat("'", type, "'"),
                   .wanted = "text or image"});
    }
    for (const char* key : {"path", "image"}) {
      if (part.contains(key) && !part[key].is_null()) {
        paths_.push_back(folder_ / require_string(part, key, where_));
        return {.type = type};
      }
    }
    if (next_ >= column_.size()) {
      throw Error({.what = "more image parts than entries of 'images'",
                   .where = where_,
                   .got = concat(column_.size(), " entries")});
    }
    paths_.push_back(column_[next_++]);
    return {.type = type};
  }

  void put_images_first(Sample& sample) {
    for (Message& message : sample.messages) {
      if (message.role != "user") continue;
      message.content.insert(message.content.begin(), column_.size(), {.type = "image"});
      paths_ = column_;
      next_ = column_.size();
      return;
    }
  }

  std::vector<fs::path> column_;
  fs::path folder_;
  std::string where_;
  std::vector<fs::path> paths_;
  std::size_t next_ = 0;  // entries of the column used
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
  SampleParser parser(parse_images(json, folder, where), folder, where);
  Sample sample{.where = where};
  for (const Json& message : *messages) sample.messages.push_back(parser.parse_message(message));
  parser.finish(sample);
  return sample;
}

}  // namespace vlm::data
