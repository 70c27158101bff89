#include "vlm/text/added_token_files.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 7> kNamed = {"bos_token", "eos_token", "unk_token", "sep_token",
                                               "pad_token", "cls_token", "mask_token"};
constexpr std::array<const char*, 2> kListed = {"additional_special_tokens",
                                                "extra_special_tokens"};

bool contains(const std::vector<std::string>& texts, const std::string& text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

// A text, or an object that holds it in "content".
std::string text_of(const Json& value, const std::string& where) {
  return value.is_string() ? value.get<std::string>() : get_string(value, "content", where);
}

// Names and ids of added_tokens.json: {"content": id}. What isn't special is looked for in
// normalized text.
std::vector<AddedToken> read_added_tokens_json(const fs::path& path,
                                               const std::vector<std::string>& special) {
  std::vector<AddedToken> tokens;
  if (!fs::exists(path)) return tokens;
  const Json json = load_json(path);
  find_member(json, "", path.string());  // an Error when it isn't an object
  for (const auto& [content, id] : json.items()) {
    const bool is_special = contains(special, content);
    tokens.push_back({.id = to_token_id(id, inside(path.string(), content)),
                      .content = content,
                      .normalized = !is_special,
                      .special = is_special});
  }
  return tokens;
}

// {"0": {"content": …, flags}, …}.
std::vector<AddedToken> read_added_tokens_decoder(const Json& json, const std::string& where) {
  std::vector<AddedToken> tokens;
  find_member(json, "", where);  // an Error when it isn't an object
  for (const auto& [key, value] : json.items()) {
    const std::string place = inside(where, key);
    AddedToken token = parse_added_token(value, place);
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size()) {
      throw Error(
          {.what = "key is not a token id", .where = where, .got = concat("\"", key, "\"")});
    }
    to_token_id(Json(token.id), place);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Later files name special tokens anew.
Json named_tokens(const fs::path& folder, const Json& config) {
  Json named = config;
  const fs::path path = folder / "special_tokens_map.json";
  if (!fs::exists(path)) return named;
  const Json json = load_json(path);
  find_member(json, "", path.string());
  for (const auto& [key, value] : json.items()) named[key] = value;
  return named;
}

}  // namespace

std::vector<std::string> collect_special(const Json& named, const std::string& where) {
  std::vector<std::string> special;
  const auto add = [&](const Json& value, const std::string& place) {
    if (!value.is_string() && !value.is_object()) return;
    const std::string text = text_of(value, place);
    if (!contains(special, text)) special.push_back(text);
  };
  for (const char* key : kNamed) {
    if (const Json* value = find_member(named, key, where)) add(*value, inside(where, key));
  }
  for (const char* key : kListed) {
    const Json* list = find_member(named, key, where);
    if (list == nullptr || !list->is_structured()) continue;
    for (const Json& value : *list) add(value, inside(where, key));
  }
  return special;
}

AddedTokenFiles AddedTokenFiles::load(const fs::path& folder) {
  AddedTokenFiles files;
  const fs::path path = folder / "tokenizer_config.json";
  files.config_path = path.string();
  if (fs::exists(path)) files.config = load_json(path);
  const Json* decoder = find_member(files.config, "added_tokens_decoder", files.config_path);
  files.is_decoder = decoder != nullptr;
  if (decoder != nullptr) {
    files.where = inside(files.config_path, "added_tokens_decoder");
    files.tokens = read_added_tokens_decoder(*decoder, files.where);
    files.named = files.config;
    files.special = collect_special(files.named, files.config_path);
  } else {
    const fs::path added = folder / "added_tokens.json";
    files.where = added.string();
    files.named = named_tokens(folder, files.config);
    files.special = collect_special(files.named, files.config_path);
    files.tokens = read_added_tokens_json(added, files.special);
  }
  std::ranges::stable_sort(files.tokens, {}, &AddedToken::id);
  return files;
}

std::optional<std::int64_t> find_added_token(const fs::path& folder, const std::string& content) {
  for (const AddedToken& token : AddedTokenFiles::load(folder).tokens) {
    if (token.content == content) return token.id;
  }
  const fs::path path = folder / "tokenizer.json";  // last, as it is large
  if (!fs::exists(path)) return std::nullopt;
  const Json json = load_json(path);
  if (find_member(json, "added_tokens", path.string()) == nullptr) return std::nullopt;
  for (const Json& token : get_array(json, "added_tokens", path.string())) {
    const std::string where = inside(path.string(), "added_tokens");
    if (get_string(token, "content", where) != content) continue;
    return to_token_id(get_member(token, "id", where), inside(where, "id"));
  }
  return std::nullopt;
}

}  // namespace vlm
