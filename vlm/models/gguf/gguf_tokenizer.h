// The tokenizer in a GGUF file ⇄ tokenizer.json, tokenizer_config.json and the chat template.
//
// Byte-level BPE ("gpt2"). How texts are cut before the merges has a name in the file; those of
// SmolLM and SmolVLM ("smollm"), Llama 3 ("llama-bpe"), Qwen2 and later ("qwen2") and GPT-2
// ("gpt-2") are known. Tokenizers of sentencepiece are in gguf_sentencepiece.h; these become
// tokenizer.model. Reference: llama-vocab.cpp of llama.cpp, October 2026.
//
// Chat templates that ask whether a message begins with a picture are written so that llama.cpp,
// which puts a mark of its own in its place, gets the answer that it has in a checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "vlm/models/gguf/gguf_config.h"

namespace vlm {

// Throws Error for another kind of tokenizer, naming it.
std::vector<SideFile> make_gguf_tokenizer(const GgufHeader& header);

// The other way, from a checkpoint folder, for a model of `vocab_size` ids. Throws Error for a
// tokenizer that such a file can't hold.
GgufPairs gguf_tokenizer_pairs(const std::filesystem::path& folder, std::int64_t vocab_size);

}  // namespace vlm
