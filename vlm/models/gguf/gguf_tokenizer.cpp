#include "vlm/models/gguf/gguf_tokenizer.h"

#include <array>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/core/log.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/vocabulary_files.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kKeys = "tokenizer.ggml.";

// Kinds of tokens, as the files number them.
enum TokenKind : std::int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5
};

// How texts are cut before the merges.
struct Cut {
  std::vector<std::string> names;  // the first is written
  Json normalizer, pre_tokenizer;
  bool ignores_merges = false;
  bool adds_bos = false;  // where the file doesn't say
};

Json byte_level(bool uses_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", uses_regex}};
}

// Pieces that a pattern finds, then bytes.
Json split_by(const char* pattern) {
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(false)})}};
}

const std::vector<Cut>& cuts() {
  static const std::vector<Cut> known = {
      {.names = {"smollm"},
       .pre_tokenizer = {{"type", "Sequence"},
                         {"pretokenizers",
                          Json::array({{{"type", "Digits"}, {"individual_digits", true}},
                                       byte_level(true)})}}},
      {.names = {"gpt-2", "gpt2"}, .pre_tokenizer = byte_level(true)},
      {.names = {"llama-bpe", "llama3", "llama-v3"},
       .pre_tokenizer =
           split_by(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
       .ignores_merges = true,
       .adds_bos = true},
      {.names = {"qwen2", "deepseek-r1-qwen"},
       .normalizer = {{"type", "NFC"}},
       .pre_tokenizer = split_by(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                 R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)")},
  };
  return known;
}

std::vector<std::string> names_of_cuts() {
  std::vector<std::string> names;
  for (const Cut& cut : cuts()) names.push_back(cut.names[0]);
  return names;
}

const Cut& find_cut(const GgufHeader& header) {
  const std::string model = header.text(kKeys + "model");
  const std::string pre = model == "gpt2" ? header.text(kKeys + "pre", "default") : "";
  for (const Cut& cut : cuts()) {
    for (const std::string& name : cut.names) {
      if (name == pre) return cut;
    }
  }
  const bool is_bpe = model == "gpt2";
  throw Error({.what = "unsupported tokenizer",
               .where = concat(header.where, ": ", kKeys, is_bpe ? "pre" : "model"),
               .got = concat("'", is_bpe ? pre : model, "'"),
               .wanted = is_bpe ? join(names_of_cuts()) : "gpt2"});
}

std::optional<std::string> token_at(const GgufHeader& header, const std::string& key) {
  const Json& tokens = header.list(kKeys + "tokens");
  const std::int64_t id = header.number(kKeys + key, -1);
  if (id < 0) return std::nullopt;
  if (id < std::ssize(tokens) && tokens[id].is_string()) return tokens[id].get<std::string>();
  throw Error({.what = "there is no such token",
               .where = concat(header.where, ": ", kKeys, key),
               .got = concat(id),
               .wanted = concat("one of ", tokens.size())});
}

// Texts and kinds of all tokens, by their ids.
void list_vocabulary(const GgufHeader& header, Json& vocabulary, Json& added) {
  const Json& tokens = header.list(kKeys + "tokens");
  const bool has_types = header.find(kKeys + "token_type") != nullptr;
  const Json types = has_types ? header.list(kKeys + "token_type") : Json::array();
  if (has_types && types.size() != tokens.size()) {
    throw Error({.what = "as many kinds as tokens are wanted",
                 .where = concat(header.where, ": ", kKeys, "token_type"),
                 .got = concat(types.size()),
                 .wanted = concat(tokens.size())});
  }
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const std::string place = concat(header.where, ": ", kKeys, "tokens[", id, "]");
    if (!tokens[id].is_string()) throw Error({.what = "is no text", .where = place});
    const std::int64_t kind = has_types && types[id].is_number_integer() ? types[id].get<int>() : 1;
    const auto& text = tokens[id].get_ref<const std::string&>();
    if (kind == kUnused) continue;
    if (!vocabulary.emplace(text, id).second) {
      throw Error({.what = "token given twice", .where = place, .got = concat("\"", text, "\"")});
    }
    if (kind != kControl && kind != kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", kind == kControl}});
  }
}

// add_bos_token and add_eos_token put these around a text.
Json make_frame(const GgufHeader& header, const Cut& cut) {
  Json single = Json::array(), special = Json::object();
  const auto add = [&](const std::string& key, bool is_default) {
    const auto text = token_at(header, key + "_token_id");
    if (!header.flag(concat(kKeys, "add_", key, "_token"), is_default && text) || !text) return;
    const std::int64_t id = header.number(concat(kKeys, key, "_token_id"));
    special[*text] = {{"id", *text}, {"ids", {id}}, {"tokens", {*text}}};
    single.push_back({{"SpecialToken", {{"id", *text}, {"type_id", 0}}}});
  };
  add("bos", cut.adds_bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add("eos", false);
  if (special.empty()) return nullptr;
  return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", special}};
}

Json make_settings(const GgufHeader& header) {
  Json settings = {{"clean_up_tokenization_spaces", false}};
  constexpr std::array<std::array<const char*, 2>, 4> kSpecial = {
      {{"bos_token", "bos_token_id"},
       {"eos_token", "eos_token_id"},
       {"unk_token", "unknown_token_id"},
       {"pad_token", "padding_token_id"}}};
  for (const auto& [name, key] : kSpecial) {
    if (const auto text = token_at(header, key)) settings[name] = *text;
  }
  return settings;
}

// Members of a stage that change nothing.
Json without_offsets(Json stage) {
  if (!stage.is_object()) return stage;
  stage.erase("trim_offsets");
  for (auto& [key, value] : stage.items()) {
    if (value.is_object()) value = without_offsets(value);
    if (!value.is_array()) continue;
    for (Json& item : value) item = without_offsets(item);
  }
  return stage;
}

const Cut& match_cut(const Json& tokenizer, const std::string& where) {
  const auto part = [&](const char* key) {
    return without_offsets(tokenizer.contains(key) ? tokenizer[key] : Json());
  };
  const Json& model = get_member(tokenizer, "model", where);
  const bool ignores_merges = get_bool(model, "ignore_merges", where, false);
  for (const Cut& cut : cuts()) {
    if (cut.pre_tokenizer == part("pre_tokenizer") && cut.normalizer == part("normalizer") &&
        cut.ignores_merges == ignores_merges) {
      return cut;
    }
  }
  throw Error({.what = "GGUF files have no name for how this tokenizer cuts texts",
               .where = inside(where, "pre_tokenizer"),
               .wanted = concat("that of ", join(names_of_cuts()))});
}

Json load_tokenizer_json(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  if (fs::exists(path)) return load_json(path);
  if (has_vocabulary_files(folder)) return make_tokenizer_json(folder);
  throw Error({.what = "GGUF files are made of byte-level BPE tokenizers alone",
               .where = folder.string(),
               .wanted = "tokenizer.json, or vocab.json with merges.txt"});
}

struct TokenLists {
  Json texts = Json::array(), types = Json::array();
};

TokenLists list_tokens(const Json& tokenizer, const std::string& where, std::int64_t vocab_size) {
  TokenLists lists;
  for (std::int64_t id = 0; id < vocab_size; ++id) {
    lists.texts.push_back(concat("[PAD", id, "]"));
    lists.types.push_back(static_cast<int>(kUnused));
  }
  const auto set = [&](const std::string& text, std::int64_t id, TokenKind kind) {
    if (id >= vocab_size) {
      log_warning(concat(where, ": the model has no row for the token ", text, ": left out"));
      return;
    }
    lists.texts[id] = text;
    lists.types[id] = static_cast<int>(kind);
  };
  const Json& model = get_member(tokenizer, "model", where);
  for (const auto& [text, id] : get_member(model, "vocab", where).items()) {
    set(text, to_token_id(id, where), kNormal);
  }
  if (find_member(tokenizer, "added_tokens", where) == nullptr) return lists;
  for (const Json& token : get_array(tokenizer, "added_tokens", where)) {
    const std::string text = get_string(token, "content", where);
    for (const char* flag : {"lstrip", "rstrip", "single_word"}) {
      if (!get_bool(token, flag, where, false)) continue;
      log_warning(concat(where, ": the token ", text, " has ", flag, ", which GGUF can't say"));
    }
    set(text, to_token_id(get_member(token, "id", where), where),
        get_bool(token, "special", where, false) ? kControl : kUserDefined);
  }
  return lists;
}

Json list_merges(const Json& model, const std::string& where) {
  Json merges = Json::array();
  for (const Json& merge : get_array(model, "merges", where)) {
    merges.push_back(merge.is_array()
                         ? concat(merge[0].get<std::string>(), " ", merge[1].get<std::string>())
                         : merge.get<std::string>());
  }
  return merges;
}

// Whether the post-processor puts this token in front of a text.
bool begins_with(const Json& post, const std::string& token) {
  if (!post.is_object()) return false;
  if (post.contains("processors")) {
    for (const Json& one : post["processors"]) {
      if (begins_with(one, token)) return true;
    }
  }
  if (!post.contains("single") || post["single"].empty()) return false;
  const Json& first = post["single"][0];
  return first.contains("SpecialToken") && first["SpecialToken"].value("id", "") == token;
}

}  // namespace

std::vector<SideFile> make_gguf_tokenizer(const GgufHeader& header) {
  const Cut& cut = find_cut(header);
  Json vocabulary = Json::object(), added = Json::array();
  list_vocabulary(header, vocabulary, added);
  const Json tokenizer = {{"version", "1.0"},
                          {"added_tokens", std::move(added)},
                          {"normalizer", cut.normalizer},
                          {"pre_tokenizer", cut.pre_tokenizer},
                          {"post_processor", make_frame(header, cut)},
                          {"decoder", {{"type", "ByteLevel"}}},
                          {"model",
                           {{"type", "BPE"},
                            {"ignore_merges", cut.ignores_merges},
                            {"vocab", std::move(vocabulary)},
                            {"merges", header.list(kKeys + "merges")}}}};
  std::vector<SideFile> files = {{"tokenizer.json", tokenizer.dump()},
                                 {"tokenizer_config.json", make_settings(header).dump(2) + "\n"}};
  const std::string chat = header.text("tokenizer.chat_template", "");
  if (!chat.empty()) files.push_back({"chat_template.jinja", chat});
  return files;
}

GgufPairs gguf_tokenizer_pairs(const fs::path& folder, std::int64_t vocab_size) {
  const Json tokenizer = load_tokenizer_json(folder);
  const std::string where = (folder / "tokenizer.json").string();
  const Cut& cut = match_cut(tokenizer, where);
  TokenLists lists = list_tokens(tokenizer, where, vocab_size);
  const Json& model = get_member(tokenizer, "model", where);
  GgufPairs pairs = {{kKeys + "model", {GgufValueType::kString, "gpt2"}},
                     {kKeys + "pre", {GgufValueType::kString, cut.names[0]}},
                     {kKeys + "tokens", {GgufValueType::kString, lists.texts}},
                     {kKeys + "token_type", {GgufValueType::kInt32, std::move(lists.types)}},
                     {kKeys + "merges", {GgufValueType::kString, list_merges(model, where)}}};
  const ChatTemplate::Variables special = load_special_tokens(folder);
  constexpr std::array<std::array<const char*, 2>, 4> kSpecial = {
      {{"bos_token", "bos_token_id"},
       {"eos_token", "eos_token_id"},
       {"unk_token", "unknown_token_id"},
       {"pad_token", "padding_token_id"}}};
  for (const auto& [name, key] : kSpecial) {
    const auto found = special.find(name);
    if (found == special.end()) continue;
    for (std::size_t id = 0; id < lists.texts.size(); ++id) {
      if (lists.texts[id] != found->second) continue;
      pairs.push_back({kKeys + key, {GgufValueType::kUint32, id}});
      break;
    }
  }
  const auto bos = special.find("bos_token");
  const Json post = tokenizer.value("post_processor", Json());
  pairs.push_back({kKeys + "add_bos_token",
                   {GgufValueType::kBool, bos != special.end() && begins_with(post, bos->second)}});
  pairs.push_back({kKeys + "add_space_prefix", {GgufValueType::kBool, false}});
  if (const auto chat = find_chat_template(folder)) {
    pairs.push_back({"tokenizer.chat_template", {GgufValueType::kString, *chat}});
  }
  return pairs;
}

}  // namespace vlm
