#include "vlm/text/jinja/jinja_value.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

// Python's str.isspace: White_Space and the four separators U+001C to U+001F.
bool is_python_space(char32_t c) {
  return is_whitespace(c) || (c >= 0x1C && c <= 0x1F);
}

std::string map_text(std::string_view text, char32_t (*map)(char32_t)) {
  std::string result;
  std::size_t at = 0;
  while (at < text.size()) append_utf8(map(next_code_point(text, at)), result);
  return result;
}

JinjaValue missing(const std::string& name) {
  return JinjaValue::Undefined{name};
}

}  // namespace

std::optional<std::int64_t> JinjaValue::integer() const {
  if (const bool* value = boolean()) return *value ? 1 : 0;
  const auto* value = std::get_if<std::int64_t>(&data_);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::string JinjaValue::type_name() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (boolean() != nullptr) return "boolean";
  if (integer()) return "integer";
  if (string() != nullptr) return "string";
  return list() != nullptr ? "list" : "dict";
}

bool JinjaValue::is_true() const {
  if (const auto value = integer()) return *value != 0;
  if (const auto* value = dict(); value != nullptr && value->is_namespace) return true;
  return length().value_or(0) > 0;
}

std::optional<std::string> JinjaValue::to_text() const {
  if (is_undefined()) return "";
  if (is_none()) return "None";
  if (const bool* value = boolean()) return *value ? "True" : "False";
  if (const auto value = integer()) return concat(*value);
  if (const auto* value = string()) return *value;
  return std::nullopt;
}

std::optional<std::int64_t> JinjaValue::length() const {
  if (is_undefined()) return 0;
  if (const auto* value = list()) return static_cast<std::int64_t>(value->size());
  if (const auto* value = dict(); value != nullptr && !value->is_namespace) {
    return static_cast<std::int64_t>(value->entries.size());
  }
  if (const auto* value = string()) {
    return std::count_if(value->begin(), value->end(),
                         [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  }
  return std::nullopt;
}

std::optional<JinjaValue::List> JinjaValue::items() const {
  if (is_undefined()) return List{};
  if (const auto* value = list()) return *value;
  List result;
  if (const auto* value = string()) {
    for (std::string& character : to_characters(*value)) result.emplace_back(std::move(character));
    return result;
  }
  const auto* value = dict();
  if (value == nullptr || value->is_namespace) return std::nullopt;
  for (const auto& entry : value->entries) result.emplace_back(entry.first);
  return result;
}

JinjaValue JinjaValue::at(const JinjaValue& key) const {
  const std::string name = key.to_text().value_or("");
  if (auto* value = dict()) {
    const JinjaValue* found = key.string() == nullptr ? nullptr : find_entry(*value, name);
    return found == nullptr ? missing(name) : *found;
  }
  const auto count = length();
  auto index = key.integer();
  if (!count || !index) return missing(name);
  if (*index < 0) *index += *count;
  if (*index < 0 || *index >= *count) return missing(name);
  const auto position = static_cast<std::size_t>(*index);
  if (const auto* value = list()) return (*value)[position];
  return to_characters(*string())[position];
}

bool operator==(const JinjaValue& left, const JinjaValue& right) {
  if (left.integer() && right.integer()) return *left.integer() == *right.integer();
  if (left.string() != nullptr && right.string() != nullptr) {
    return *left.string() == *right.string();
  }
  if (left.list() != nullptr && right.list() != nullptr) return *left.list() == *right.list();
  if (left.dict() != nullptr && right.dict() != nullptr) {
    const auto& entries = left.dict()->entries;
    return entries.size() == right.dict()->entries.size() &&
           std::all_of(entries.begin(), entries.end(), [&](const auto& entry) {
             const JinjaValue* other = find_entry(*right.dict(), entry.first);
             return other != nullptr && *other == entry.second;
           });
  }
  return (left.is_none() && right.is_none()) || (left.is_undefined() && right.is_undefined());
}

JinjaValue* find_entry(JinjaValue::Dict& dict, std::string_view key) {
  const auto found = std::find_if(dict.entries.begin(), dict.entries.end(),
                                  [key](const auto& entry) { return entry.first == key; });
  return found == dict.entries.end() ? nullptr : &found->second;
}

std::vector<std::string> to_characters(std::string_view text) {
  std::vector<std::string> result;
  std::size_t at = 0;
  while (at < text.size()) result.push_back(to_utf8(next_code_point(text, at)));
  return result;
}

std::string upper_text(std::string_view text) {
  return map_text(text, to_upper);
}
std::string lower_text(std::string_view text) {
  return map_text(text, to_lower);
}

std::string capitalize_text(std::string_view text) {
  if (text.empty()) return "";
  std::size_t at = 0;
  const std::string first = to_utf8(to_title(next_code_point(text, at)));
  return first + lower_text(text.substr(at));
}

// Words begin behind a hyphen, a bracket, "<" or white space.
std::string title_text(std::string_view text) {
  std::string result;
  bool begins = true;
  std::size_t at = 0;
  while (at < text.size()) {
    const char32_t c = next_code_point(text, at);
    append_utf8(begins ? to_upper(c) : to_lower(c), result);
    begins = c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_python_space(c);
  }
  return result;
}

std::string strip_text(std::string_view text, const std::optional<std::string>& characters,
                       StripSides sides) {
  const std::vector<std::string> set = to_characters(characters.value_or(""));
  const auto is_stripped = [&](const std::string& character) {
    if (characters) return std::find(set.begin(), set.end(), character) != set.end();
    std::size_t at = 0;
    return is_python_space(next_code_point(character, at));
  };
  const std::vector<std::string> all = to_characters(text);
  auto begin = all.begin();
  auto end = all.end();
  while (sides.left && begin != end && is_stripped(*begin)) ++begin;
  while (sides.right && begin != end && is_stripped(*(end - 1))) --end;
  std::string result;
  for (; begin != end; ++begin) result += *begin;
  return result;
}

}  // namespace vlm
