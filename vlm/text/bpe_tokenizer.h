// tokenizer.json with a byte-level (or byte-fallback) BPE model.
//
//   text ─► added tokens ─► normalizer ─► added tokens ─► pre-tokenizer ─► BPE ─► post-processor
//   ids ─► tokens ─► decoder ─► text
//
// Gives the ids and text of the `tokenizers` package (0.23) for files as SmolLM2, SmolVLM2, GPT-2,
// Qwen2, Llama 3 and Gemma have them. "truncation" and "padding" of the file are not applied, as
// transformers doesn't apply them either.
#pragma once

#include <string>

#include "vlm/core/json.h"
#include "vlm/text/bpe/added_tokens.h"
#include "vlm/text/bpe/bpe_model.h"
#include "vlm/text/bpe/decoder.h"
#include "vlm/text/bpe/normalizer.h"
#include "vlm/text/bpe/post_processor.h"
#include "vlm/text/bpe/pre_tokenizer.h"
#include "vlm/text/tokenizer.h"

namespace vlm {

class BpeTokenizer : public Tokenizer {
 public:
  // `json` is the whole file, `where` its name in errors. Throws Error naming the component.
  BpeTokenizer(const Json& json, const std::string& where);

  std::vector<std::int64_t> encode(std::string_view text,
                                   bool add_special_tokens = false) const override;
  std::unique_ptr<DecodeStream> start_decoding(bool skip_special_tokens) const override;
  std::optional<std::int64_t> token_to_id(std::string_view token) const override;
  std::optional<std::string> id_to_token(std::int64_t id) const override;
  std::string token_bytes(std::int64_t id) const override;
  std::int64_t vocab_size() const override { return vocab_size_; }

 private:
  class Stream;

  void read_added_tokens(const Json& json, const std::string& where);
  std::int64_t added_id(const Json& entry, const std::string& content,
                        const std::string& where) const;
  void encode_text(std::string_view text, BpeModel::Encoder& encoder,
                   std::vector<std::int64_t>& ids) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  PostProcessor post_processor_;
  Decoder decoder_;
  AddedTokens added_;
  std::int64_t vocab_size_ = 0;
};

}  // namespace vlm
