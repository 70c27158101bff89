// A sample for people to read: its tokens one by one, learned ones marked, and all tokens of a
// picture or clip as one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/preview.h"
#include "vlm/text/tokenizer.h"

namespace vlm::train {

struct TokenView {
  enum class Kind { kPlain, kLearned, kMedium, kCut };
  Kind kind = Kind::kPlain;
  // For a medium its description: "picture 1: 3 × 4 tiles and the whole, 832 tokens".
  std::string text;
  std::int64_t id = -1;  // of the token; -1 for a medium
  std::int64_t medium = -1;
};

// kLearned: tokens with a label; kCut: tokens that length_policy cuts. A token that ends within a
// character has no text; the one that completes it has the character.
std::vector<TokenView> view_tokens(const data::Preview& preview, const Tokenizer& tokenizer);

// "picture 2: 3 × 4 tiles and the whole"; `number` counts from 1.
std::string describe_medium(const MediumText& text, std::int64_t number);

// The tokens as lines. Learned ones are green on a terminal, and in [[ ]] otherwise; tokens are
// divided by "|", and line breaks shown.
std::string render_tokens(const std::vector<TokenView>& tokens, bool uses_color);

}  // namespace vlm::train
