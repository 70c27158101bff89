// A sentencepiece model (tokenizer.model) with the added tokens of the files beside it.
//
//   text ─► added tokens ─► sentencepiece ─► ids ─► bos/eos      ids ─► text
//
// Ids and text are those of the `sentencepiece` package; libsentencepiece does the work, and only
// sentencepiece_tokenizer.cpp sees it. Added tokens (PaliGemma's <image>, <loc0000>, <seg000>; bos,
// eos and pad written in a text) are cut out first; they come from tokenizer_config.json's
// added_tokens_decoder or, in older folders, from added_tokens.json and special_tokens_map.json,
// and may have ids behind the model's, or take over those of its spare pieces (InternLM2 names
// [UNUSED_TOKEN_145] <|im_end|>). A dummy prefix ("▁" in front) is added at the start of the
// text only, not behind added tokens, but where tokenizer_config.json says "legacy": true.
// encode(…, true) adds bos and eos as add_bos_token and add_eos_token of tokenizer_config.json say;
// without them, bos where the model has one.
//
// decode leaves out control tokens when special tokens are skipped, as the package always does, and
// else shows them.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "vlm/text/bpe/added_tokens.h"
#include "vlm/text/tokenizer.h"

namespace vlm {

class SentencepieceTokenizer : public Tokenizer {
 public:
  // Reads `folder`/tokenizer.model and the files beside it. Throws Error.
  explicit SentencepieceTokenizer(const std::filesystem::path& folder);
  ~SentencepieceTokenizer() override;

  std::vector<std::int64_t> encode(std::string_view text,
                                   bool add_special_tokens = false) const override;
  std::unique_ptr<DecodeStream> start_decoding(bool skip_special_tokens) const override;
  std::optional<std::int64_t> token_to_id(std::string_view token) const override;
  std::optional<std::string> id_to_token(std::int64_t id) const override;
  std::string token_bytes(std::int64_t id) const override;
  std::int64_t vocab_size() const override { return vocab_size_; }

 private:
  class Model;  // libsentencepiece
  class Stream;

  void read_config(const std::filesystem::path& folder);
  void add_tokens(std::vector<AddedToken> tokens, const std::string& where);

  std::unique_ptr<Model> model_;
  std::unique_ptr<Model> inner_model_;  // without dummy prefix: for text behind an added token
  AddedTokens added_;
  bool add_bos_ = true;
  bool add_eos_ = false;
  std::int64_t vocab_size_ = 0;
};

}  // namespace vlm
