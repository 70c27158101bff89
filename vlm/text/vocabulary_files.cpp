#include "vlm/text/vocabulary_files.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/text/added_token_files.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kVocabulary = "vocab.json";
constexpr const char* kMerges = "merges.txt";

// How Qwen2's texts are cut before the merges.
constexpr const char* kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// A class of transformers: its stages, and the special tokens that it has where no file names one.
struct TokenizerClass {
  const char* name;
  bool is_qwen;
  std::array<const char*, 3> defaults;
};
constexpr const char* kEndOfText = "<|endoftext|>";
constexpr std::array<TokenizerClass, 2> kClasses = {{
    {"Qwen2Tokenizer", true, {"eos_token", "unk_token", "pad_token"}},
    {"GPT2Tokenizer", false, {"bos_token", "eos_token", "unk_token"}},
}};

const TokenizerClass& find_class(const AddedTokenFiles& files) {
  const std::string name = get_string(files.config, "tokenizer_class", files.config_path, "none");
  for (const TokenizerClass& known : kClasses) {
    if (name == known.name || name == concat(known.name, "Fast")) return known;
  }
  throw Error({.what = "unsupported tokenizer beside vocab.json",
               .where = inside(files.config_path, "tokenizer_class"),
               .got = concat("'", name, "'"),
               .wanted = "Qwen2Tokenizer or GPT2Tokenizer",
               .hint = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) of "
                       "transformers writes a tokenizer.json, which is read"});
}

Json make_pre_tokenizer(const TokenizerClass& kind, const AddedTokenFiles& files) {
  const bool has_space = get_bool(files.config, "add_prefix_space", files.config_path, false);
  const Json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", has_space}, {"use_regex", !kind.is_qwen}};
  if (!kind.is_qwen) return bytes;
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kQwenPattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}};
}

Json read_merges(const fs::path& path) {
  const std::string text = load_text(path);
  Json merges = Json::array();
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.starts_with("#version")) continue;
    if (std::count(line.begin(), line.end(), ' ') != 1) {
      throw Error({.what = "not a merge",
                   .where = concat(path.string(), ":", number),
                   .got = concat("\"", line, "\""),
                   .wanted = "two tokens with a space between them"});
    }
    merges.push_back(std::move(line));
  }
  return merges;
}

// Special tokens that no file gives an id get the next ones.
std::vector<AddedToken> list_tokens(const TokenizerClass& kind, const AddedTokenFiles& files,
                                    const Json& vocabulary) {
  std::vector<AddedToken> tokens = files.tokens;
  const auto is_listed = [&](const std::string& content) {
    return std::any_of(tokens.begin(), tokens.end(),
                       [&](const AddedToken& token) { return token.content == content; });
  };
  auto next = static_cast<std::int64_t>(vocabulary.size());
  for (const AddedToken& token : tokens) {
    if (!vocabulary.contains(token.content)) ++next;
  }
  const auto add = [&](const std::string& content) {
    if (is_listed(content)) return;
    const auto found = vocabulary.find(content);
    const std::int64_t id = found == vocabulary.end()
                                ? next++
                                : to_token_id(*found, concat(kVocabulary, ": ", content));
    tokens.push_back({.id = id, .content = content, .special = true});
  };
  Json named = files.named;
  for (const char* key : kind.defaults) {
    if (!named.contains(key)) named[key] = kEndOfText;
  }
  const std::vector<std::string> special = collect_special(named, files.config_path);
  for (AddedToken& token : tokens) {
    token.special |= std::find(special.begin(), special.end(), token.content) != special.end();
  }
  for (const std::string& content : special) add(content);
  return tokens;
}

Json to_json(const AddedToken& token) {
  return {{"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
          {"special", token.special}};
}

// add_bos_token and add_eos_token put these around a text.
Json make_post_processor(const AddedTokenFiles& files, const std::vector<AddedToken>& tokens) {
  Json single = Json::array(), special = Json::object();
  const auto add = [&](const char* flag, const char* key) {
    if (!get_bool(files.config, flag, files.config_path, false)) return;
    const Json& value = get_member(files.config, key, files.config_path);
    const std::string text =
        value.is_string() ? value.get<std::string>() : get_string(value, "content", key);
    const auto token = std::find_if(tokens.begin(), tokens.end(),
                                    [&](const AddedToken& one) { return one.content == text; });
    if (token == tokens.end()) {
      throw Error({.what = "the token to add has no id",
                   .where = inside(files.config_path, key),
                   .got = concat("\"", text, "\"")});
    }
    special[text] = {{"id", text}, {"ids", Json::array({token->id})}, {"tokens", {text}}};
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
  };
  add("add_bos_token", "bos_token");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add("add_eos_token", "eos_token");
  if (special.empty()) return nullptr;
  return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", special}};
}

}  // namespace

bool has_vocabulary_files(const fs::path& folder) {
  return fs::exists(folder / kVocabulary) && fs::exists(folder / kMerges);
}

Json make_tokenizer_json(const fs::path& folder) {
  const AddedTokenFiles files = AddedTokenFiles::load(folder);
  const TokenizerClass& kind = find_class(files);
  Json vocabulary = load_json(folder / kVocabulary);
  find_member(vocabulary, "", (folder / kVocabulary).string());  // an Error when it is no object
  const std::vector<AddedToken> tokens = list_tokens(kind, files, vocabulary);
  Json added = Json::array();
  for (const AddedToken& token : tokens) added.push_back(to_json(token));
  return {{"added_tokens", std::move(added)},
          {"normalizer", kind.is_qwen ? Json{{"type", "NFC"}} : Json()},
          {"pre_tokenizer", make_pre_tokenizer(kind, files)},
          {"model",
           {{"type", "BPE"},
            {"vocab", std::move(vocabulary)},
            {"merges", read_merges(folder / kMerges)}}},
          {"post_processor", make_post_processor(files, tokens)},
          {"decoder", {{"type", "ByteLevel"}}}};
}

}  // namespace vlm
