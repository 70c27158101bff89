#include "vlm/core/byte_escape.h"

#include <cstdint>
#include <nlohmann/json.hpp>

namespace vlm {
namespace {

bool is_continuation(std::string_view text, std::size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
}

// Bytes of the code point that begins there; 0 when it is none that UTF-8 has: too long a form, a
// surrogate, beyond U+10FFFF, or cut off.
std::size_t code_point_size(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return 1;
  const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4) return 0;
  for (std::size_t i = 1; i < size; ++i) {
    if (!is_continuation(text, at + i)) return 0;
  }
  const auto second = static_cast<unsigned char>(text[at + 1]);
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return 0;
  if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return 0;
  return size;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool is_escape(std::string_view text, std::size_t at) {
  return text.size() - at >= 4 && text[at] == '\\' && text[at + 1] == 'x' &&
         hex_digit(text[at + 2]) >= 0 && hex_digit(text[at + 3]) >= 0;
}

OrderedJson escaped(const OrderedJson& json) {
  if (json.is_string()) return as_utf8(json.get<std::string>());
  if (!json.is_structured()) return json;
  OrderedJson copy = json.is_object() ? OrderedJson::object() : OrderedJson::array();
  for (const auto& [key, value] : json.items()) {
    if (json.is_object()) {
      copy[as_utf8(key)] = escaped(value);
    } else {
      copy.push_back(escaped(value));
    }
  }
  return copy;
}

}  // namespace

std::string escape_bytes(std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = code_point_size(text, at);
    if (size == 0 || is_escape(text, at)) {
      const auto byte = static_cast<unsigned char>(text[at]);
      result += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
      ++at;
    } else {
      result += text.substr(at, size);
      at += size;
    }
  }
  return result;
}

std::string as_utf8(std::string text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = code_point_size(text, at);
    if (size == 0) return escape_bytes(text);
    at += size;
  }
  return text;
}

std::string unescape_bytes(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    if (is_escape(text, at)) {
      result += static_cast<char>(hex_digit(text[at + 2]) * 16 + hex_digit(text[at + 3]));
      at += 4;
    } else {
      result += text[at++];
    }
  }
  return result;
}

std::string dump_text(const OrderedJson& json) {
  try {
    return json.dump();
  } catch (const OrderedJson::type_error&) {  // a text that isn't UTF-8
    return escaped(json).dump();
  }
}

}  // namespace vlm
