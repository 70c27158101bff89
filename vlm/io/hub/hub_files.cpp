#include "vlm/io/hub/hub_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/io/hub/http.h"

namespace vlm {
namespace {

bool is_plain_part(const std::string& part) {
  return !part.empty() && part.size() <= 255 && part != "." && part != "..";
}

// Characters that end a name early, mean a folder elsewhere, or command a terminal (U+0000–U+001F,
// U+007F–U+009F).
bool has_bad_character(const std::string& name) {
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto byte = static_cast<unsigned char>(name[i]);
    const auto next = static_cast<unsigned char>(i + 1 < name.size() ? name[i + 1] : 0);
    if (byte < 0x20 || byte == 0x7f || byte == '\\') return true;
    if (byte == 0xc2 && next >= 0x80 && next < 0xa0) return true;
  }
  return false;
}

bool is_safe(const std::string& name) {
  if (has_bad_character(name)) return false;
  std::size_t start = 0;
  while (true) {
    const auto slash = name.find('/', start);
    if (!is_plain_part(name.substr(start, slash - start))) return false;
    if (slash == std::string::npos) return name.size() <= 1024;
    start = slash + 1;
  }
}

bool is_card_or_licence(const std::string& name) {
  return name.ends_with(".md") || name.starts_with("LICENSE") || name.starts_with("NOTICE");
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

void check_file_name(const std::string& name, const std::string& where) {
  if (is_safe(name)) return;
  throw Error({.what = "the hub names a file that is not let near the disk",
               .where = where,
               .got = concat("'", printable(name), "'"),
               .wanted = "a relative path without '..'"});
}

bool is_text_file(const std::string& name) {
  // The one folder that belongs to a checkpoint; others hold exports for other programs.
  if (name.starts_with("additional_chat_templates/")) {
    return name.ends_with(".jinja") && name.find('/') == name.rfind('/');
  }
  if (name.find('/') != std::string::npos) return false;
  for (const char* ending : {".json", ".txt", ".jinja", ".md"}) {
    if (name.ends_with(ending)) return true;
  }
  return name == "tokenizer.model" || name == "LICENSE" || name == "NOTICE";
}

bool is_needed_file(const std::string& name) {
  return is_text_file(name) && !is_card_or_licence(name);
}

std::vector<std::string> weight_files(const std::vector<std::string>& names) {
  if (contains(names, kWeights)) return {kWeights};
  if (contains(names, kWeightIndex)) return {};
  std::vector<std::string> weights;
  for (const std::string& name : names) {
    if (name.ends_with(".safetensors") && name.find('/') == std::string::npos) {
      weights.push_back(name);
    }
  }
  return weights;
}

std::vector<std::string> shard_names(const std::string& index_json, const std::string& where) {
  const Json index = parse_json(index_json, where);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object()) {
    throw Error({.what = "no weight_map", .where = where, .wanted = "an object"});
  }
  std::set<std::string> shards;
  for (const auto& [key, shard] : map->items()) {
    const std::string name = shard.is_string() ? shard.get<std::string>() : "";
    if (!is_plain_part(name) || name.find('/') != std::string::npos || !is_safe(name) ||
        !name.ends_with(".safetensors")) {
      throw Error({.what = "not a shard of this folder",
                   .where = concat(where, ": ", printable(key)),
                   .got = printable(describe(shard))});
    }
    shards.insert(name);
  }
  return {shards.begin(), shards.end()};
}

}  // namespace vlm
