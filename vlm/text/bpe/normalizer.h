// tokenizer.json's "normalizer": text → text before anything is split.
//
// Supported: none, NFC, Lowercase, Prepend, Replace and Sequence; others are an Error that names
// them. NFC equals that of the `tokenizers` package (which knows Unicode 9) for every sequence of
// code points.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

class Normalizer {
 public:
  // `json` is the component, or null for none. Throws Error.
  Normalizer(const Json* json, const std::string& where);

  // `text` is valid UTF-8, and so is the result.
  std::string apply(std::string_view text) const;

  bool is_identity() const { return steps_.empty(); }

 private:
  void add_steps(const Json& json, const std::string& where);

  std::vector<std::function<std::string(std::string)>> steps_;
};

}  // namespace vlm
