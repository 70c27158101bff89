#include "vlm/text/bpe/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "vlm/core/json_access.h"
#include "vlm/text/bpe/bpe_pattern.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

// Below U+0300 nothing moves, decomposes for good or composes.
bool is_trivially_nfc(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

int combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// Decomposes, sorts runs of marks and composes again: code points without inert marks.
class NfcSegment {
 public:
  bool empty() const { return decomposed_.empty(); }

  void add(char32_t code_point) {
    utf8proc_int32_t parts[8];  // canonical decompositions have 4 at most
    int boundary = 0;
    const auto count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(code_point), parts, 8,
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
    decomposed_.insert(decomposed_.end(), parts, parts + count);
  }

  void flush(std::string& result) {
    sort_marks();
    const auto length = utf8proc_normalize_utf32(
        decomposed_.data(), static_cast<utf8proc_ssize_t>(decomposed_.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    for (utf8proc_ssize_t i = 0; i < length; ++i) {
      append_utf8(static_cast<char32_t>(decomposed_[static_cast<std::size_t>(i)]), result);
    }
    decomposed_.clear();
  }

 private:
  // std::stable_sort, because utf8proc's own sort takes quadratic time for a long run of marks.
  void sort_marks() {
    const auto is_starter = [](utf8proc_int32_t c) { return combining_class(c) == 0; };
    auto begin = decomposed_.begin();
    while (begin != decomposed_.end()) {
      begin = std::find_if_not(begin, decomposed_.end(), is_starter);
      const auto end = std::find_if(begin, decomposed_.end(), is_starter);
      std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
        return combining_class(a) < combining_class(b);
      });
      begin = end;
    }
  }

  std::vector<utf8proc_int32_t> decomposed_;
};

std::string to_nfc(std::string text) {
  if (is_trivially_nfc(text)) return text;
  std::string result;
  result.reserve(text.size());
  NfcSegment segment;
  std::size_t at = 0;
  while (at < text.size()) {
    const char32_t code_point = next_code_point(text, at);
    if (is_inert_mark(code_point)) {
      segment.flush(result);
      append_utf8(code_point, result);
    } else {
      segment.add(code_point);
    }
  }
  segment.flush(result);
  return result;
}

std::string to_lower_text(std::string text) {
  constexpr char32_t kDottedCapitalI = 0x130;
  std::string result;
  result.reserve(text.size());
  std::size_t at = 0;
  while (at < text.size()) {
    const char32_t code_point = next_code_point(text, at);
    append_utf8(code_point == kDottedCapitalI ? U'i' : to_lower(code_point), result);
    if (code_point == kDottedCapitalI) append_utf8(0x307, result);
  }
  return result;
}

}  // namespace

Normalizer::Normalizer(const Json* json, const std::string& where) {
  if (json != nullptr) add_steps(*json, where);
}

void Normalizer::add_steps(const Json& json, const std::string& where) {
  const std::string type = get_string(json, "type", where);
  if (type == "Sequence") {
    const Json& parts = get_array(json, "normalizers", where);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      add_steps(parts[i], inside(inside(where, "normalizers"), i));
    }
  } else if (type == "NFC") {
    steps_.emplace_back(to_nfc);
  } else if (type == "Lowercase") {
    steps_.emplace_back(to_lower_text);
  } else if (type == "Prepend") {
    steps_.emplace_back([prefix = get_string(json, "prepend", where)](std::string text) {
      return text.empty() ? text : prefix + text;
    });
  } else if (type == "Replace") {
    const auto pattern = std::make_shared<Pattern>(
        parse_pattern(get_member(json, "pattern", where), inside(where, "pattern")));
    steps_.emplace_back([pattern, content = get_string(json, "content", where)](std::string text) {
      return pattern->replace_all(text, content);
    });
  } else {
    refuse_component(type, inside(where, "type"), "NFC, Lowercase, Prepend, Replace or Sequence");
  }
}

std::string Normalizer::apply(std::string_view text) const {
  std::string result(text);
  for (const auto& step : steps_) result = step(std::move(result));
  return result;
}

}  // namespace vlm
