// The tokens that a GGUF file lists, and those that its keys name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vlm/io/gguf/gguf_header.h"

namespace vlm {

inline const std::string kGgufTokenizer = "tokenizer.ggml.";  // keys begin so

// Kinds of tokens, as the files number them.
enum class GgufTokenKind : std::int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct GgufToken {
  std::string text;
  GgufTokenKind kind = GgufTokenKind::kNormal;
};

// By their ids. Throws Error for lists that don't fit each other, and for a token given twice.
std::vector<GgufToken> list_gguf_tokens(const GgufHeader& header);

// What the token is that a key ("bos_token_id") names; `missing` is the id without the key, -1:
// none. Throws Error for an id that isn't there.
std::optional<std::string> gguf_token_at(const GgufHeader& header, const std::string& key,
                                         std::int64_t missing = -1);

}  // namespace vlm
