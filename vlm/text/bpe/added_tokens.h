// Added and special tokens: strings that become one id wherever they stand in a text.
//
//   text ─► split(kRaw) ─► segments: an id, or text that is normalized ─► split(kNormalized) ─► …
//
// Tokens with `normalized` are looked for after the normalizer (in their own normalized form), the
// others before it. The longest token at the leftmost place wins. Reference: AddedVocabulary of the
// `tokenizers` package.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

struct AddedToken {
  std::int64_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows white space on its left
  bool rstrip = false;       // … and on its right
  bool normalized = false;
  bool special = false;  // left out by decode(skip_special_tokens)
};

// One entry of "added_tokens"; `id` is read by the caller. Throws Error.
AddedToken parse_added_token(const Json& json, const std::string& where);

class AddedTokens {
 public:
  enum class Stage { kRaw, kNormalized };

  // Either a token (id >= 0, text empty) or text between tokens (id -1).
  struct Segment {
    std::int64_t id = -1;
    std::string_view text;
  };

  AddedTokens();

  // `normalize` gives the form in which tokens with `normalized` are looked for. Special tokens
  // come before others where two have the same form.
  AddedTokens(std::vector<AddedToken> tokens,
              const std::function<std::string(std::string_view)>& normalize);

  // The segments of `text` (valid UTF-8), which they point into.
  std::vector<Segment> split(std::string_view text, Stage stage) const;

  const AddedToken* find(std::string_view content) const;

  // What an id stands for in decoded text: the normalized form of tokens with `normalized`. Like
  // the package, a special token whose form differs from its content isn't skipped.
  struct Form {
    std::string text;
    bool skipped = false;  // by decode(skip_special_tokens)
  };
  const Form* find_form(std::int64_t id) const;

 private:
  // A set of strings, for finding the longest of them that starts at a place of a text.
  class Trie {
   public:
    Trie();
    void insert(std::string_view text, std::int32_t value);
    // Length and value of the longest string at `at`, or length 0.
    std::pair<std::size_t, std::int32_t> longest_at(std::string_view text, std::size_t at) const;

   private:
    struct Node {
      std::int32_t value = -1;
      std::vector<std::pair<unsigned char, std::int32_t>> children = {};
    };
    std::vector<Node> nodes_;
    std::array<std::int32_t, 256> first_;  // child of the root for each byte, or -1
  };

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::int64_t, Form> forms_;
  std::unordered_map<std::string, std::size_t> by_content_;
  std::array<Trie, 2> tries_;  // by Stage
};

}  // namespace vlm
