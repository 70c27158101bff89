// Tokenizers of sentencepiece's kind in GGUF files ("llama") ⇄ tokenizer.model.
//
//   keys of a file ─► a sentencepiece model, and what tokenizer_config.json says beside it
//
// Pairs are merged by the scores of what they give, as sentencepiece's BPE does. As in llama.cpp,
// the space in front of a text ("add_space_prefix") also comes behind each special token.
// Reference: llama-vocab.cpp of llama.cpp, October 2026.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "vlm/models/gguf/gguf_config.h"

namespace vlm {

inline constexpr const char* kGgufSentencepiece = "llama";  // tokenizer.ggml.model

struct SentencepieceSide {
  std::string model;  // tokenizer.model
  Json settings;      // members of tokenizer_config.json
};

// Throws Error for a file that lacks what such a tokenizer needs.
SentencepieceSide make_gguf_sentencepiece(const GgufHeader& header);

// Whether that is how the tokenizer of a checkpoint folder is written.
bool has_sentencepiece(const std::filesystem::path& folder);

// Tokens, their scores and kinds, and where spaces are put, for a model of `vocab_size` ids; and
// the special tokens where tokenizer_config.json doesn't name them. Throws Error for a
// tokenizer.model of another kind than BPE.
struct SentencepiecePairs {
  GgufPairs pairs;
  std::string bos, eos, unknown;
};
SentencepiecePairs gguf_sentencepiece_pairs(const std::filesystem::path& folder,
                                            std::int64_t vocab_size);

}  // namespace vlm
