#include "vlm/core/config/config_text.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/text_file.h"

namespace vlm {
namespace {

std::string text_of(const YAML::Mark& mark) {
  return mark.is_null() ? "1:1" : concat(mark.line + 1, ":", mark.column + 1);
}

template <typename Number>
std::optional<Number> parse_whole(std::string_view text, int base) {
  Number value{};
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (read.ec != std::errc{} || read.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<OrderedJson> parse_number(std::string_view text) {
  if (text.starts_with("0x")) {
    if (const auto value = parse_whole<std::int64_t>(text.substr(2), 16)) return *value;
    return std::nullopt;
  }
  std::string_view digits = text;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  if (const auto value = parse_whole<std::int64_t>(digits, 10)) return *value;
  // from_chars takes "inf" and "nan", which the core schema spells .inf and .nan.
  if (digits.find_first_not_of("+-.0123456789eE") != std::string_view::npos) return std::nullopt;
  double value = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (read.ec != std::errc{} || read.ptr != digits.data() + digits.size()) return std::nullopt;
  return value;
}

// A plain scalar by the core schema; quoted ones are text.
OrderedJson parse_scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
    return nullptr;
  }
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  if (const auto number = parse_number(text)) return *number;
  return text;
}

class YamlReader {
 public:
  explicit YamlReader(ConfigText& config) : config_(config) {}

  OrderedJson read(const YAML::Node& node, const std::string& path, int depth) {
    // Aliases of aliases can stand for more values than any memory holds.
    if (++values_ > kMaxValues) fail(node, "too many values", concat("at most ", kMaxValues));
    if (depth > kMaxJsonDepth) fail(node, "nested too deeply", concat("at most ", kMaxJsonDepth));
    const std::string& tag = node.Tag();
    if (!tag.empty() && tag != "?" && tag != "!") fail(node, "tags aren't read", "plain values");
    if (node.IsMap()) return read_map(node, path, depth);
    if (!node.IsSequence()) return node.IsScalar() ? parse_scalar(node) : OrderedJson(nullptr);
    OrderedJson list = OrderedJson::array();
    for (std::size_t i = 0; i < node.size(); ++i) {
      const std::string place = concat(path, "[", i, "]");
      config_.places[place] = text_of(node[i].Mark());
      list.push_back(read(node[i], place, depth + 1));
    }
    return list;
  }

 private:
  static constexpr int kMaxValues = 100'000;

  [[noreturn]] void fail(const YAML::Node& node, const std::string& what,
                         const std::string& wanted) const {
    throw Error(
        {.what = what, .where = concat(config_.file, ":", text_of(node.Mark())), .wanted = wanted});
  }

  OrderedJson read_map(const YAML::Node& node, const std::string& path, int depth) {
    OrderedJson map = OrderedJson::object();
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) fail(entry.first, "a key that isn't text", "a name");
      const std::string& key = entry.first.Scalar();
      if (key == "<<" && entry.first.Tag() != "!") continue;
      const std::string place = path.empty() ? key : path + ": " + key;
      if (map.contains(key)) fail(entry.first, concat("key '", key, "' given twice"), "once");
      config_.places[place] = text_of(entry.first.Mark());
      map[key] = read(entry.second, place, depth + 1);
    }
    if (const YAML::Node merged = node["<<"]) merge(merged, map, path, depth);
    return map;
  }

  // Keys of the merged maps, where the map itself, or an earlier one of them, has none.
  void merge(const YAML::Node& merged, OrderedJson& map, const std::string& path, int depth) {
    if (merged.IsSequence()) {
      for (const YAML::Node& one : merged) merge(one, map, path, depth);
      return;
    }
    if (!merged.IsMap()) fail(merged, "<< merges maps", "an alias of a map");
    const OrderedJson added = read(merged, path, depth + 1);
    for (const auto& [key, value] : added.items()) {
      if (!map.contains(key)) map[key] = value;
    }
  }

  ConfigText& config_;
  int values_ = 0;
};

void read_yaml(const std::string& text, ConfigText& config) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1) {
      throw Error({.what = "several YAML documents in one file",
                   .where = config.file,
                   .got = concat(documents.size()),
                   .wanted = "one"});
    }
    config.values =
        documents.empty() ? OrderedJson::object() : YamlReader(config).read(documents[0], "", 0);
    if (config.values.is_null()) config.values = OrderedJson::object();
  } catch (const YAML::Exception& error) {
    throw Error({.what = "not valid YAML",
                 .where = concat(config.file, ":", text_of(error.mark)),
                 .got = error.msg});
  }
}

// The path of an error's key: what stands behind the file's name, and the key that isn't known.
std::string key_path(const ErrorParts& parts, const std::string& file) {
  std::string path = parts.where;
  if (path == file) path.clear();
  if (path.starts_with(file + ": ")) path.erase(0, file.size() + 2);
  constexpr std::string_view kUnknown = "unknown key '";
  if (parts.what.starts_with(kUnknown)) {
    const std::string key = parts.what.substr(
        kUnknown.size(), parts.what.find('\'', kUnknown.size()) - kUnknown.size());
    path += (path.empty() ? "" : ": ") + key;
  }
  return path;
}

}  // namespace

Error ConfigText::placed(const Error& error) const {
  ErrorParts parts = error.parts();
  const std::string path = key_path(parts, file);
  std::string inside = parts.where == file ? "" : parts.where;
  if (inside.starts_with(file + ": ")) inside.erase(0, file.size() + 2);
  // The longest part of the path that the file has a place for: "train_files[0].weight" lies in
  // "train_files[0]".
  std::string place;
  for (std::string known = path; !known.empty() && place.empty();) {
    const auto found = places.find(known);
    if (found != places.end()) place = ":" + found->second;
    const auto cut = known.find_last_of(".:[");
    known.resize(cut == std::string::npos ? 0 : cut);
  }
  parts.where = file + place + (inside.empty() ? "" : ": " + inside);
  return Error(std::move(parts));
}

ConfigText parse_yaml(const std::string& text, const std::string& where) {
  ConfigText config{.file = where, .values = {}};
  read_yaml(text, config);
  return config;
}

ConfigText load_config_text(const std::filesystem::path& path) {
  const auto suffix = path.extension();
  if (suffix == ".yaml" || suffix == ".yml")
    return parse_yaml(load_plain_text(path), path.string());
  return {.file = path.string(), .values = load_ordered_json(path)};
}

}  // namespace vlm
