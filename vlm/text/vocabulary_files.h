// vocab.json and merges.txt → what tokenizer.json says, for folders of before that file.
//
//   vocab.json, merges.txt, tokenizer_config.json, added_tokens.json … ─► JSON for BpeTokenizer
//
// The stages around the vocabulary stand in no file but follow from tokenizer_class: Qwen2Tokenizer
// (Qwen2, 2.5 and 3, InternVL) and GPT2Tokenizer. Ids are those of these classes in transformers
// 5.23: added tokens follow the vocabulary in the order of their ids.
#pragma once

#include <filesystem>

#include "vlm/core/json.h"

namespace vlm {

bool has_vocabulary_files(const std::filesystem::path& folder);

// Throws Error naming the file, and a tokenizer_class that isn't one of them.
Json make_tokenizer_json(const std::filesystem::path& folder);

}  // namespace vlm
