#include "data/metrics/answer_match.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "vlm/core/ascii.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::data {
namespace {

std::vector<char32_t> code_points(const std::string& text) {
  const std::string valid = to_valid_utf8(text);
  std::vector<char32_t> points;
  for (std::size_t at = 0; at < valid.size();) points.push_back(next_code_point(valid, at));
  return points;
}

// Lower-cased words with one space between.
std::vector<char32_t> folded(const std::string& text) {
  std::vector<char32_t> kept;
  bool has_space = false;
  for (const char32_t point : code_points(text)) {
    if (is_whitespace(point)) {
      has_space = !kept.empty();
      continue;
    }
    if (has_space) kept.push_back(U' ');
    has_space = false;
    kept.push_back(to_lower(point));
  }
  return kept;
}

// Code points of the text in upper case, where a few letters become several.
std::size_t upper_length(const std::string& text) {
  std::size_t length = 0;
  for (const char32_t point : code_points(text)) {
    const bool is_triple = point == 0xFB03 || point == 0xFB04;  // ligatures ffi, ffl
    const bool is_double = point == 0xDF || (point >= 0xFB00 && point <= 0xFB06);
    length += is_triple ? 3 : is_double ? 2 : 1;
  }
  return length;
}

std::size_t edit_distance(const std::vector<char32_t>& a, const std::vector<char32_t>& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

// A number as Python's float() reads it; nothing for other text.
std::optional<double> parse_float(const std::string& text) {
  std::string digits = strip_space(text);
  if (digits.starts_with("+")) {
    digits.erase(0, 1);
    if (digits.starts_with("-")) return std::nullopt;
  }
  for (std::size_t i = 1; i + 1 < digits.size(); ++i) {  // 1_000
    if (digits[i] == '_' && is_digit(digits[i - 1]) && is_digit(digits[i + 1])) digits.erase(i, 1);
  }
  if (digits.find('(') != std::string::npos) return std::nullopt;
  double value = 0;
  const char* end = digits.data() + digits.size();
  const auto [at, code] = std::from_chars(digits.data(), end, value);
  if (code != std::errc() || at != end) return std::nullopt;
  return value;
}

std::optional<double> parse_number(const std::string& text) {
  if (!text.ends_with("%")) return parse_float(text);
  const auto number = parse_float(text.substr(0, text.find_last_not_of('%') + 1));
  return number ? std::optional(*number / 100) : std::nullopt;
}

}  // namespace

std::string strip_space(const std::string& text) {
  const std::string valid = to_valid_utf8(text);
  std::size_t begin = valid.size(), end = 0;
  for (std::size_t at = 0; at < valid.size();) {
    const std::size_t start = at;
    if (is_whitespace(next_code_point(valid, at))) continue;
    begin = std::min(begin, start);
    end = at;
  }
  return begin < end ? valid.substr(begin, end - begin) : "";
}

std::string lower_text(const std::string& text) {
  std::string lower;
  for (const char32_t point : code_points(text)) append_utf8(to_lower(point), lower);
  return lower;
}

bool is_same_answer(const std::string& answer, const std::string& reference) {
  const auto folded_ascii = [](const std::string& text) {
    const char* space = " \t\r\n";
    const auto begin = text.find_first_not_of(space);
    if (begin == std::string::npos) return std::string();
    std::string kept = text.substr(begin, text.find_last_not_of(space) - begin + 1);
    for (char& c : kept) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return kept;
  };
  return folded_ascii(answer) == folded_ascii(reference);
}

double normalized_levenshtein_similarity(const std::string& answer, const std::string& reference) {
  constexpr double kThreshold = 0.5;
  const std::size_t length = std::max(upper_length(answer), upper_length(reference));
  if (length == 0) return 1;
  const auto distance = static_cast<double>(edit_distance(folded(answer), folded(reference)));
  const double similarity = 1 - distance / static_cast<double>(length);
  return similarity < kThreshold ? 0 : similarity;
}

std::size_t reference_length(const std::string& reference) {
  return std::max<std::size_t>(1, code_points(strip_space(reference)).size());
}

double character_error_rate(const std::string& answer, const std::string& reference) {
  const auto edits =
      edit_distance(code_points(strip_space(answer)), code_points(strip_space(reference)));
  return static_cast<double>(edits) / static_cast<double>(reference_length(reference));
}

bool is_relaxed_match(const std::string& answer, const std::string& reference) {
  constexpr double kTolerance = 0.05;
  const std::string given = strip_space(answer), wanted = strip_space(reference);
  const auto number = parse_number(given), target = parse_number(wanted);
  if (number && target && *target != 0) {
    return std::abs(*number - *target) / std::abs(*target) <= kTolerance;
  }
  return lower_text(given) == lower_text(wanted);
}

}  // namespace vlm::data
