#include "vlm/models/gguf/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/core/log.h"
#include "vlm/models/gguf/gguf_sentencepiece.h"
#include "vlm/models/gguf/gguf_tokens.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/vocabulary_files.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

using Kind = GgufTokenKind;

// What SmolVLM's template asks, and the same for programs that have texts alone, with a mark where
// a picture belongs: "<__media__>" in llama.cpp's.
const std::string kIsPicture = "message['content'][0]['type'] == 'image'";
const std::string kIsPictureOrMark =
    "message['content'][0]['type'] == 'image' or (message['content'][0]['type'] == 'text' and "
    "message['content'][0]['text'].startswith('<__media'))";

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
  const std::string model = header.text(kGgufTokenizer + "model");
  const std::string pre = model == "gpt2" ? header.text(kGgufTokenizer + "pre", "default") : "";
  for (const Cut& cut : cuts()) {
    for (const std::string& name : cut.names) {
      if (name == pre) return cut;
    }
  }
  const bool is_bpe = model == "gpt2";
  throw Error({.what = "unsupported tokenizer",
               .where = concat(header.where, ": ", kGgufTokenizer, is_bpe ? "pre" : "model"),
               .got = concat("'", is_bpe ? pre : model, "'"),
               .wanted = is_bpe ? join(names_of_cuts()) : concat("gpt2 or ", kGgufSentencepiece)});
}

// Texts of all tokens, and those that aren't made by merges.
void list_vocabulary(const GgufHeader& header, Json& vocabulary, Json& added) {
  const std::vector<GgufToken> tokens = list_gguf_tokens(header);
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const auto& [text, kind] = tokens[id];
    if (kind == Kind::kUnused) continue;
    vocabulary.emplace(text, id);
    if (kind != Kind::kControl && kind != Kind::kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", kind == Kind::kControl}});
  }
}

// add_bos_token and add_eos_token put these around a text.
Json make_frame(const GgufHeader& header, const Cut& cut) {
  Json single = Json::array(), special = Json::object();
  const auto add = [&](const std::string& key, bool is_default) {
    const auto text = gguf_token_at(header, key + "_token_id");
    if (!header.flag(concat(kGgufTokenizer, "add_", key, "_token"), is_default && text) || !text)
      return;
    const std::int64_t id = header.number(concat(kGgufTokenizer, key, "_token_id"));
    special[*text] = {{"id", *text}, {"ids", {id}}, {"tokens", {*text}}};
    single.push_back({{"SpecialToken", {{"id", *text}, {"type_id", 0}}}});
  };
  add("bos", cut.adds_bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add("eos", false);
  if (special.empty()) return nullptr;
  return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", special}};
}

// Names of special tokens in tokenizer_config.json, and keys of a file.
constexpr std::array<std::array<const char*, 2>, 4> kSpecial = {
    {{"bos_token", "bos_token_id"},
     {"eos_token", "eos_token_id"},
     {"unk_token", "unknown_token_id"},
     {"pad_token", "padding_token_id"}}};

Json make_settings(const GgufHeader& header) {
  Json settings = {{"clean_up_tokenization_spaces", false}};
  for (const auto& [name, key] : kSpecial) {
    if (const auto text = gguf_token_at(header, key)) settings[name] = *text;
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
  throw Error({.what = "no tokenizer that GGUF files can hold",
               .where = folder.string(),
               .wanted = "tokenizer.json, vocab.json with merges.txt, or tokenizer.model"});
}

struct TokenLists {
  Json texts = Json::array(), types = Json::array();
};

TokenLists list_tokens(const Json& tokenizer, const std::string& where, std::int64_t vocab_size) {
  TokenLists lists;
  for (std::int64_t id = 0; id < vocab_size; ++id) {
    lists.texts.push_back(concat("[PAD", id, "]"));
    lists.types.push_back(static_cast<int>(Kind::kUnused));
  }
  const auto set = [&](const std::string& text, std::int64_t id, Kind kind) {
    if (id >= vocab_size) {
      log_warning(concat(where, ": the model has no row for the token ", text, ": left out"));
      return;
    }
    lists.texts[id] = text;
    lists.types[id] = static_cast<int>(kind);
  };
  const Json& model = get_member(tokenizer, "model", where);
  for (const auto& [text, id] : get_member(model, "vocab", where).items()) {
    set(text, to_token_id(id, where), Kind::kNormal);
  }
  if (find_member(tokenizer, "added_tokens", where) == nullptr) return lists;
  for (const Json& token : get_array(tokenizer, "added_tokens", where)) {
    const std::string text = get_string(token, "content", where);
    for (const char* flag : {"lstrip", "rstrip", "single_word"}) {
      if (!get_bool(token, flag, where, false)) continue;
      log_warning(concat(where, ": the token ", text, " has ", flag, ", which GGUF can't say"));
    }
    set(text, to_token_id(get_member(token, "id", where), where),
        get_bool(token, "special", where, false) ? Kind::kControl : Kind::kUserDefined);
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

// The token that the post-processor puts in front of a text; empty: there is none.
std::string first_of_frame(const Json& post) {
  if (!post.is_object()) return "";
  if (post.contains("processors")) {
    for (const Json& one : post["processors"]) {
      if (const std::string first = first_of_frame(one); !first.empty()) return first;
    }
  }
  if (!post.contains("single") || post["single"].empty()) return "";
  const Json& first = post["single"][0];
  return first.contains("SpecialToken") ? first["SpecialToken"].value("id", "") : "";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

Json make_bpe(const GgufHeader& header) {
  const Cut& cut = find_cut(header);
  Json vocabulary = Json::object(), added = Json::array();
  list_vocabulary(header, vocabulary, added);
  return {{"version", "1.0"},
          {"added_tokens", std::move(added)},
          {"normalizer", cut.normalizer},
          {"pre_tokenizer", cut.pre_tokenizer},
          {"post_processor", make_frame(header, cut)},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"ignore_merges", cut.ignores_merges},
            {"vocab", std::move(vocabulary)},
            {"merges", header.list(kGgufTokenizer + "merges")}}}};
}

// Names the first token of texts in `special`, if no file did.
GgufPairs bpe_pairs(const fs::path& folder, std::int64_t vocab_size,
                    ChatTemplate::Variables& special) {
  const Json tokenizer = load_tokenizer_json(folder);
  const std::string where = (folder / "tokenizer.json").string();
  const Cut& cut = match_cut(tokenizer, where);
  TokenLists lists = list_tokens(tokenizer, where, vocab_size);
  const Json& model = get_member(tokenizer, "model", where);
  const std::string first = first_of_frame(tokenizer.value("post_processor", Json()));
  if (!first.empty()) special.emplace("bos_token", first);
  return {{kGgufTokenizer + "model", {GgufValueType::kString, "gpt2"}},
          {kGgufTokenizer + "pre", {GgufValueType::kString, cut.names[0]}},
          {kGgufTokenizer + "tokens", {GgufValueType::kString, std::move(lists.texts)}},
          {kGgufTokenizer + "token_type", {GgufValueType::kInt32, std::move(lists.types)}},
          {kGgufTokenizer + "merges", {GgufValueType::kString, list_merges(model, where)}},
          {kGgufTokenizer + "add_bos_token",
           {GgufValueType::kBool, !first.empty() && special["bos_token"] == first}},
          {kGgufTokenizer + "add_space_prefix", {GgufValueType::kBool, false}}};
}

// Ids of the special tokens that have names.
GgufPairs special_pairs(const ChatTemplate::Variables& special, const GgufPairs& pairs) {
  const auto tokens =
      std::ranges::find(pairs, kGgufTokenizer + "tokens", &GgufPairs::value_type::first);
  GgufPairs found;
  for (const auto& [name, key] : kSpecial) {
    const auto token = special.find(name);
    if (token == special.end()) continue;
    const Json& texts = tokens->second.value;
    const auto at = std::ranges::find(texts, Json(token->second));
    if (at == texts.end()) continue;
    found.push_back({kGgufTokenizer + key, {GgufValueType::kUint32, at - texts.begin()}});
  }
  return found;
}

}  // namespace

std::vector<SideFile> make_gguf_tokenizer(const GgufHeader& header) {
  std::vector<SideFile> files;
  Json settings = make_settings(header);
  if (header.text(kGgufTokenizer + "model") == kGgufSentencepiece) {
    SentencepieceSide side = make_gguf_sentencepiece(header);
    files.push_back({"tokenizer.model", std::move(side.model)});
    settings.update(side.settings);
  } else {
    files.push_back({"tokenizer.json", make_bpe(header).dump()});
  }
  files.push_back({"tokenizer_config.json", settings.dump(2) + "\n"});
  const std::string chat = header.text("tokenizer.chat_template", "");
  if (!chat.empty()) {
    files.push_back({"chat_template.jinja", replaced(chat, kIsPictureOrMark, kIsPicture)});
  }
  return files;
}

GgufPairs gguf_tokenizer_pairs(const fs::path& folder, std::int64_t vocab_size) {
  ChatTemplate::Variables special = load_special_tokens(folder);
  GgufPairs pairs;
  if (has_sentencepiece(folder)) {
    SentencepiecePairs found = gguf_sentencepiece_pairs(folder, vocab_size);
    pairs = std::move(found.pairs);
    special.insert(
        {{"bos_token", found.bos}, {"eos_token", found.eos}, {"unk_token", found.unknown}});
  } else {
    pairs = bpe_pairs(folder, vocab_size, special);
  }
  const GgufPairs ids = special_pairs(special, pairs);
  pairs.insert(pairs.end(), ids.begin(), ids.end());
  if (const auto chat = find_chat_template(folder)) {
    pairs.push_back({"tokenizer.chat_template",
                     {GgufValueType::kString, replaced(*chat, kIsPicture, kIsPictureOrMark)}});
  }
  return pairs;
}

}  // namespace vlm
