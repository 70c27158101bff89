#include "vlm/text/tokenizer.h"

#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/text/bpe_tokenizer.h"
#include "vlm/text/sentencepiece_tokenizer.h"
#include "vlm/text/vocabulary_files.h"

namespace vlm {

namespace fs = std::filesystem;

std::string Tokenizer::decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const {
  const auto stream = start_decoding(skip_special_tokens);
  std::string text;
  for (const std::int64_t id : ids) text += stream->add(id);
  return text + stream->finish();
}

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& folder) {
  const fs::path json_path = folder / "tokenizer.json";
  if (fs::exists(json_path)) {
    return std::make_unique<BpeTokenizer>(load_json(json_path), json_path.string());
  }
  if (fs::exists(folder / "tokenizer.model")) {
    return std::make_unique<SentencepieceTokenizer>(folder);
  }
  if (has_vocabulary_files(folder)) {
    return std::make_unique<BpeTokenizer>(make_tokenizer_json(folder), folder.string());
  }
  throw Error({.what = "no tokenizer found",
               .where = folder.string(),
               .wanted = "tokenizer.json, tokenizer.model, or vocab.json with merges.txt"});
}

}  // namespace vlm
