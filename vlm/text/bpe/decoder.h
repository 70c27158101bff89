// tokenizer.json's "decoder": tokens → text, token by token.
//
//   "Hell" "o" "Ġw…" ─► add, add, add, finish ─► "Hello w…"
//
// Supported: none (tokens with spaces between them), ByteLevel, Replace, ByteFallback, Fuse, Strip
// and Sequence; others are an Error that names them. Text that later tokens may still change (half
// a character, a run of byte tokens) is held back, so the cost is linear and the pieces joined are
// the text of all tokens at once. Reference: decoders of the `tokenizers` package.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

// One step of decoding, for one list of tokens. Both functions pass finished text to `next`.
class DecodeStep {
 public:
  using Next = std::function<void(std::string_view)>;

  virtual ~DecodeStep() = default;
  virtual void add(std::string_view token, const Next& next) = 0;
  virtual void finish(const Next&) {}
};

// The steps of one list of tokens.
class DecodeChain {
 public:
  explicit DecodeChain(std::vector<std::unique_ptr<DecodeStep>> steps) : steps_(std::move(steps)) {}

  std::string add(std::string_view token);
  std::string finish();

 private:
  void feed(std::size_t step, std::string_view token, std::string& text);

  std::vector<std::unique_ptr<DecodeStep>> steps_;
};

class Decoder {
 public:
  // `json` is the component, or null for none. Throws Error.
  Decoder(const Json* json, const std::string& where);

  DecodeChain start() const;

  // What a token adds to a text, in bytes that need not be whole characters. Throws Error without
  // a decoder: then a token that begins a text looks different from the others.
  std::string bytes_of(const std::string& token) const;

 private:
  void add_steps(const Json& json, const std::string& where);

  std::vector<std::function<std::unique_ptr<DecodeStep>()>> makers_;
  std::vector<std::function<std::string(const std::string&)>> to_bytes_;  // of a token
  bool fused_ = false;  // while reading: later steps see one token
};

}  // namespace vlm
