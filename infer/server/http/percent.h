// Percent signs in URLs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "vlm/core/ascii.h"

namespace vlm::infer {

// "a%20b" → "a b", once. Nothing for a percent sign without two hex digits.
inline std::optional<std::string> decode_percents(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    const bool is_whole =
        i + 2 < text.size() && is_hex_digit(text[i + 1]) && is_hex_digit(text[i + 2]);
    if (!is_whole) return std::nullopt;
    decoded += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
    i += 2;
  }
  return decoded;
}

}  // namespace vlm::infer
