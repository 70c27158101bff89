#include "vlm/models/gguf/gguf_sentencepiece.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/core/log.h"
#include "vlm/models/gguf/gguf_tokens.h"
#include "vlm/text/added_token_files.h"
#include "vlm/text/sentencepiece_file.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using Kind = GgufTokenKind;

constexpr std::int64_t kByteTokens = 256;
constexpr float kAddedScore = -1000, kUnusedScore = -10000;  // as llama.cpp's converter gives them
constexpr std::int64_t kUnknownId = 0, kBosId = 1, kEosId = 2;  // where a file doesn't say

void check_kinds(const std::vector<GgufToken>& tokens, const std::string& where) {
  const auto count = [&](Kind kind) { return std::ranges::count(tokens, kind, &GgufToken::kind); };
  const std::string place = concat(where, ": ", kGgufTokenizer, "token_type");
  if (count(Kind::kUnknown) != 1) {
    throw Error({.what = "number of tokens for what is unknown (2)",
                 .where = place,
                 .got = concat(count(Kind::kUnknown)),
                 .wanted = "1"});
  }
  const std::int64_t bytes = count(Kind::kByte);
  if (bytes != 0 && bytes != kByteTokens) {
    throw Error({.what = "number of tokens for bytes (6)",
                 .where = place,
                 .got = concat(bytes),
                 .wanted = concat("none or ", kByteTokens)});
  }
}

std::vector<float> list_scores(const GgufHeader& header, std::size_t count) {
  const Json& scores = header.list(kGgufTokenizer + "scores");
  const bool fits = scores.size() == count &&
                    std::ranges::all_of(scores, [](const Json& one) { return one.is_number(); });
  if (!fits) {
    throw Error({.what = "a score for each token is wanted",
                 .where = concat(header.where, ": ", kGgufTokenizer, "scores"),
                 .got = concat(scores.size()),
                 .wanted = concat(count, " numbers")});
  }
  return scores.get<std::vector<float>>();
}

// Tokens that are cut out of a text before all else.
bool is_cut_out(Kind kind) {
  return kind == Kind::kUnknown || kind == Kind::kControl || kind == Kind::kUserDefined;
}

// What is written of a token.
struct Row {
  std::string text;
  float score = kUnusedScore;
  Kind kind = Kind::kUnused;
};

std::string with_spaces(std::string text) {
  const std::string mark = "\xE2\x96\x81";  // ▁
  for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos; ++at) {
    text.replace(at, mark.size(), " ");
  }
  return text;
}

// As the pieces, and with the tokens that the files beside them add.
std::vector<Row> list_rows(const fs::path& folder, const SentencepieceFile& file,
                           std::int64_t vocab_size) {
  std::vector<Row> rows(static_cast<std::size_t>(vocab_size));
  for (std::size_t id = 0; id < rows.size(); ++id) rows[id].text = concat("[PAD", id, "]");
  const auto set = [&](std::int64_t id, const Row& row) {
    if (id < vocab_size) {
      rows[static_cast<std::size_t>(id)] = row;
    } else {
      log_warning(
          concat(folder.string(), ": the model has no row for the token ", row.text, ": left out"));
    }
  };
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const SentencePiece& piece = file.pieces[id];
    const bool is_searched =
        piece.kind == PieceKind::kUserDefined;  // in texts as people write them
    set(static_cast<std::int64_t>(id), {is_searched ? with_spaces(piece.text) : piece.text,
                                        piece.score, static_cast<Kind>(piece.kind)});
  }
  for (const AddedToken& token : AddedTokenFiles::load(folder).tokens) {
    const bool is_unknown = token.content == file.unknown;
    const Kind kind = is_unknown      ? Kind::kUnknown
                      : token.special ? Kind::kControl
                                      : Kind::kUserDefined;
    set(token.id, {token.content, kAddedScore, kind});
  }
  return rows;
}

}  // namespace

SentencepieceSide make_gguf_sentencepiece(const GgufHeader& header) {
  const std::vector<GgufToken> tokens = list_gguf_tokens(header);
  check_kinds(tokens, header.where);
  const std::vector<float> scores = list_scores(header, tokens.size());
  SentencepieceFile file = {
      .is_bpe = true,
      .adds_dummy_prefix = header.flag(kGgufTokenizer + "add_space_prefix", true),
      .removes_extra_whitespaces = false};
  Json added = Json::object();
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const auto& [text, kind] = tokens[id];
    // Unused ones can have the text of another.
    file.pieces.push_back({kind == Kind::kUnused ? concat("[unused ", id, "]") : text, scores[id],
                           static_cast<PieceKind>(kind)});
    if (kind == Kind::kUnknown) file.unknown = text;
    if (!is_cut_out(kind)) continue;
    added[concat(id)] = {{"content", text},      {"lstrip", false},
                         {"normalized", false},  {"rstrip", false},
                         {"single_word", false}, {"special", kind != Kind::kUserDefined}};
  }
  file.bos = gguf_token_at(header, "bos_token_id", kBosId).value_or(file.bos);
  file.eos = gguf_token_at(header, "eos_token_id", kEosId).value_or(file.eos);
  return {write_sentencepiece(file),
          {{"added_tokens_decoder", std::move(added)},
           {"add_bos_token", header.flag(kGgufTokenizer + "add_bos_token", true)},
           {"add_eos_token", header.flag(kGgufTokenizer + "add_eos_token", false)},
           {"legacy", true}}};
}

bool has_sentencepiece(const fs::path& folder) {
  if (!fs::exists(folder / "tokenizer.model")) return false;
  const fs::path path = folder / "tokenizer.json";
  if (!fs::exists(path)) return true;
  const Json tokenizer = load_json(path);
  const Json& model = get_member(tokenizer, "model", path.string());
  return get_bool(model, "byte_fallback", path.string(), false);
}

SentencepiecePairs gguf_sentencepiece_pairs(const fs::path& folder, std::int64_t vocab_size) {
  const std::string where = (folder / "tokenizer.model").string();
  const SentencepieceFile file = parse_sentencepiece(load_text(where), where);
  if (!file.is_bpe) {
    throw Error({.what = "GGUF files hold sentencepiece tokenizers of BPE alone",
                 .where = where,
                 .got = "another kind (unigram?)",
                 .wanted = "one trained with model_type=bpe"});
  }
  if (file.has_rules || file.removes_extra_whitespaces) {
    log_warning(where +
                ": changes texts before they are cut (normalization), which GGUF can't say");
  }
  Json texts = Json::array(), scores = Json::array(), kinds = Json::array();
  for (const Row& row : list_rows(folder, file, vocab_size)) {
    texts.push_back(row.text);
    scores.push_back(row.score);
    kinds.push_back(static_cast<std::int64_t>(row.kind));
  }
  const Json config = AddedTokenFiles::load(folder).config;
  const auto says = [&](const char* key, bool missing) {
    return GgufValue{GgufValueType::kBool, get_bool(config, key, where, missing)};
  };
  GgufPairs pairs = {
      {kGgufTokenizer + "model", {GgufValueType::kString, kGgufSentencepiece}},
      {kGgufTokenizer + "pre", {GgufValueType::kString, "default"}},
      {kGgufTokenizer + "tokens", {GgufValueType::kString, std::move(texts)}},
      {kGgufTokenizer + "scores", {GgufValueType::kFloat32, std::move(scores)}},
      {kGgufTokenizer + "token_type", {GgufValueType::kInt32, std::move(kinds)}},
      {kGgufTokenizer + "add_bos_token", says("add_bos_token", true)},
      {kGgufTokenizer + "add_eos_token", says("add_eos_token", false)},
      {kGgufTokenizer + "add_space_prefix", {GgufValueType::kBool, file.adds_dummy_prefix}}};
  return {std::move(pairs), file.bos, file.eos, file.unknown};
}

}  // namespace vlm
