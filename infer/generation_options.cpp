#include "infer/generation_options.h"

#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

// One id or a list of ids; null and absence leave the list empty.
std::vector<std::int64_t> read_ids(const Json& json, const char* key, const std::string& where) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  if (!json.is_object() || found == json.end() || found->is_null()) return {};
  const Json list = found->is_array() ? *found : Json::array({*found});
  std::vector<std::int64_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer()) {
      throw Error({.what = "wrong type",
                   .where = where + ": " + key,
                   .got = describe(*found),
                   .wanted = "an id or a list of ids"});
    }
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

// config.json names ids at the top or, in older files, in text_config.
std::vector<std::int64_t> config_ids(const Json& config, const char* key,
                                     const std::string& where) {
  auto ids = read_ids(config, key, where);
  if (ids.empty() && config.contains("text_config")) {
    ids = read_ids(config["text_config"], key, where + ": text_config");
  }
  return ids;
}

}  // namespace

GenerationOptions load_generation_options(const std::filesystem::path& folder) {
  GenerationOptions options;
  const auto path = folder / "generation_config.json";
  const bool has_file = std::filesystem::exists(path);
  const auto source = has_file ? path : folder / "config.json";
  const Json json = load_json(source);
  options.eos_token_ids = has_file ? read_ids(json, "eos_token_id", source.string())
                                   : config_ids(json, "eos_token_id", source.string());
  const auto pad = read_ids(json, "pad_token_id", source.string());
  if (has_file && !pad.empty()) options.pad_token_id = pad[0];
  return options;
}

}  // namespace vlm::infer
