// Characters and text as ASCII has them, whatever the locale.
#pragma once

#include <string>
#include <string_view>

namespace vlm {

inline bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

inline std::string to_lower_ascii(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// Without the white space at both ends.
inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace vlm
