// tokenizer.json's "pre_tokenizer": text → pieces that the model encodes one by one.
//
// Supported: none, Sequence, Digits, Split (regular expressions and strings, every behaviour,
// inverted or not) and ByteLevel; others are an Error that names them. A piece is never empty.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/text/bpe/bpe_pattern.h"

namespace vlm {

// A text and the parts of it that are kept, in their order.
struct Pieces {
  std::string text;
  std::vector<Span> spans;

  std::string_view operator[](std::size_t i) const {
    return std::string_view(text).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
};

class PreTokenizer {
 public:
  // `json` is the component, or null for none. Throws Error.
  PreTokenizer(const Json* json, const std::string& where);

  // `text` is valid UTF-8. Throws Error when a regular expression gives up.
  Pieces apply(std::string_view text) const;

 private:
  void add_steps(const Json& json, const std::string& where);

  std::vector<std::function<void(Pieces&)>> steps_;
};

}  // namespace vlm
