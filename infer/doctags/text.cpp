#include "infer/doctags/text.h"

#include <string_view>

namespace vlm::infer {
namespace {

constexpr std::string_view kWhiteSpace = " \t\r\n";

// Length of "3." or "12)" with a space behind it, in front of more text; 0: there is none.
std::size_t number_length(const std::string& text) {
  const std::size_t digits = text.find_first_not_of("0123456789");
  const bool is_number = digits != 0 && digits != std::string::npos && digits < 10 &&
                         (text[digits] == '.' || text[digits] == ')') && digits + 2 < text.size() &&
                         text[digits + 1] == ' ';
  return is_number ? digits + 2 : 0;
}

}  // namespace

std::string one_line(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const bool is_space = kWhiteSpace.find(c) != std::string_view::npos;
    if (!is_space) line += c;
    if (is_space && !line.empty() && line.back() != ' ') line += ' ';
  }
  if (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

std::string without_marker(const std::string& text, bool is_ordered) {
  if (is_ordered) return text.substr(number_length(text));
  for (const std::string_view bullet : {"• ", "· ", "◦ ", "▪ ", "– ", "- ", "* "}) {
    if (text.starts_with(bullet)) return text.substr(bullet.size());
  }
  return text;
}

std::string item_number(const std::string& text) {
  const std::size_t length = number_length(text);
  return length > 0 ? text.substr(0, length - 2) : "";
}

std::string html_escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

}  // namespace vlm::infer
