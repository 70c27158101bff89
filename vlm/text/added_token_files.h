// Added tokens as the files beside a vocabulary or a sentencepiece model list them.
//
// tokenizer_config.json's added_tokens_decoder has them with their flags; older folders have
// added_tokens.json (texts and ids) and name special ones in special_tokens_map.json and
// tokenizer_config.json. tokenizer.json holds its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/text/bpe/added_tokens.h"

namespace vlm {

struct AddedTokenFiles {
  Json config = Json::object();  // tokenizer_config.json; empty without one
  std::string config_path;
  std::vector<AddedToken> tokens;  // those with ids, in the order of these
  std::string where;               // their place, for errors
  bool is_decoder = false;         // of added_tokens_decoder, which is complete
  Json named;                      // the members of the files that name special tokens
  std::vector<std::string> special;

  // Throws Error naming file and key.
  static AddedTokenFiles load(const std::filesystem::path& folder);
};

// Texts that `named` calls special, in the order in which transformers adds them: bos_token,
// eos_token and so on, then the additional ones.
std::vector<std::string> collect_special(const Json& named, const std::string& where);

// The id of the added token with this text in any of the files, tokenizer.json included. Doesn't
// read the vocabulary.
std::optional<std::int64_t> find_added_token(const std::filesystem::path& folder,
                                             const std::string& content);

}  // namespace vlm
