#include "infer/structured/grammar/code_points.h"

#include <algorithm>

namespace vlm::infer {
namespace {

constexpr char32_t kLast = 0x10ffff;
constexpr std::pair<char32_t, const char*> kEscapes[] = {
    {'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"}, {'\f', "\\f"},
    {'\n', "\\n"}, {'\r', "\\r"},  {'\t', "\\t"}};

std::string to_escape(char32_t code_point) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "\\U00000000";
  for (std::size_t i = text.size(); code_point > 0; code_point >>= 4) {
    text[--i] = kDigits[code_point & 15];
  }
  return text;
}

std::string to_class(const std::vector<std::pair<char32_t, char32_t>>& ranges) {
  std::string text = "[";
  for (const auto& [first, last] : ranges) {
    text += to_escape(first);
    if (last > first) text += "-" + to_escape(last);
  }
  return text + "]";
}

}  // namespace

CodePoints::CodePoints(std::initializer_list<std::pair<char32_t, char32_t>> ranges) {
  for (const auto& [first, last] : ranges) add(first, last);
}

CodePoints CodePoints::all() {
  return {{0, 0xd7ff}, {0xe000, kLast}};
}

void CodePoints::add(char32_t first, char32_t last) {
  ranges_.emplace_back(first, std::min(last, kLast));
  std::sort(ranges_.begin(), ranges_.end());
  std::vector<std::pair<char32_t, char32_t>> joined;
  for (const auto& range : ranges_) {
    if (!joined.empty() && range.first <= joined.back().second + 1) {
      joined.back().second = std::max(joined.back().second, range.second);
    } else {
      joined.push_back(range);
    }
  }
  ranges_ = std::move(joined);
}

void CodePoints::add(const CodePoints& other) {
  for (const auto& [first, last] : other.ranges_) add(first, last);
}

CodePoints CodePoints::complement() const {
  CodePoints rest;
  char32_t next = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > next) rest.add(next, first - 1);
    next = last + 1;
  }
  if (next <= kLast) rest.add(next, kLast);
  return rest.without({{0xd800, 0xdfff}});
}

CodePoints CodePoints::without(const CodePoints& other) const {
  CodePoints rest;
  for (auto [first, last] : ranges_) {
    for (const auto& hole : other.ranges_) {
      if (hole.second < first || hole.first > last) continue;
      if (hole.first > first) rest.add(first, hole.first - 1);
      first = hole.second + 1;
      if (first > last) break;
    }
    if (first <= last) rest.add(first, last);
  }
  return rest;
}

bool CodePoints::has(char32_t code_point) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& range) {
    return range.first <= code_point && code_point <= range.second;
  });
}

std::string CodePoints::to_grammar(bool in_json) const {
  const CodePoints valid = without({{0xd800, 0xdfff}});
  if (!in_json) return valid.is_empty() ? "" : to_class(valid.ranges_);
  std::vector<std::string> choices;
  const CodePoints plain = valid.without({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}, {0x7f, 0x7f}});
  if (!plain.is_empty()) choices.push_back(to_class(plain.ranges_));
  for (const auto& [code_point, escape] : kEscapes) {
    if (has(code_point)) choices.push_back(to_literal(escape));
  }
  if (choices.empty()) return "";
  std::string text = choices[0];
  for (std::size_t i = 1; i < choices.size(); ++i) text += " | " + choices[i];
  return choices.size() == 1 ? text : "(" + text + ")";
}

std::string to_literal(std::string_view text) {
  std::string literal = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      literal += '\\';
      literal += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      literal += to_escape(byte);
    } else {
      literal += c;
    }
  }
  return literal + "\"";
}

}  // namespace vlm::infer
