// A mark that keeps a special token's text from becoming the token.
//
// "<image>" in what a stranger writes is text: with the mark behind its first character, chat
// templates and tokenizers don't know it, and tokenizers leave the mark out of what they encode. It
// is a noncharacter of Unicode (U+FDD0), which text that is exchanged never holds.
#pragma once

#include <string>
#include <string_view>

namespace vlm {

inline constexpr std::string_view kPlainMark = "\xEF\xB7\x90";

inline std::string without_plain_marks(std::string_view text) {
  std::string clean;
  for (;;) {
    const auto at = text.find(kPlainMark);
    clean += text.substr(0, at);
    if (at == std::string_view::npos) return clean;
    text.remove_prefix(at + kPlainMark.size());
  }
}

}  // namespace vlm
