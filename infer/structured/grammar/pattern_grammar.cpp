#include "infer/structured/grammar/pattern_grammar.h"

#include <cstdint>
#include <optional>
#include <vector>

#include "infer/structured/grammar/code_points.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostPatternBytes = 512;
constexpr std::int64_t kMostPatternCount = 1000;
constexpr std::int64_t kMostPatternSize = 4000;  // characters that the pattern unrolls to
constexpr int kMostPatternDepth = 32;
constexpr std::int64_t kUnbounded = -1;

const CodePoints kDigitCharacters = {{'0', '9'}};
const CodePoints kWordCharacters = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kSpaces = {{'\t', '\r'}, {' ', ' '}};
const CodePoints kEverySpace = {
    {'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
    {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
const CodePoints kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

// A part of the pattern as EBNF.
struct PatternPiece {
  std::string text = {};  // "": the empty text
  std::int64_t size = 0;  // characters that it unrolls to
  bool may_be_empty = true;
};

class PatternReader {
 public:
  PatternReader(const std::string& pattern, const PatternUse& use, const std::string& where)
      : pattern_(pattern), use_(use), where_(where) {}

  std::string read() {
    if (pattern_.size() > kMostPatternBytes) {
      refuse("the pattern is too long", concat(pattern_.size(), " bytes"),
             concat("at most ", kMostPatternBytes));
    }
    if (!is_valid_utf8(pattern_)) refuse("the pattern isn't UTF-8");
    const PatternPiece piece = read_choices(/*is_whole=*/true);
    if (!is_at_end()) refuse("unmatched bracket", ")");
    return piece.text.empty() ? "\"\"" : piece.text;
  }

 private:
  [[noreturn]] void refuse(const std::string& what, const std::string& got = "",
                           const std::string& wanted = "") const {
    throw Error({.what = what,
                 .where = concat(where_, ": pattern '", pattern_, "'"),
                 .got = got,
                 .wanted = wanted});
  }

  bool is_at_end() const { return at_ == pattern_.size(); }
  bool takes(std::string_view text) {
    if (pattern_.compare(at_, text.size(), text) != 0) return false;
    at_ += text.size();
    return true;
  }
  char32_t next() {
    if (is_at_end()) refuse("the pattern ends too early");
    return next_code_point(pattern_, at_);
  }

  std::string any_text() const { return CodePoints::all().to_grammar(use_.in_json) + "*"; }

  // Alternatives up to a bracket or the end. Anchors may stand at the ends of the whole pattern's.
  PatternPiece read_choices(bool is_whole) {
    if (++depth_ > kMostPatternDepth) refuse("the pattern is nested too deeply");
    PatternPiece all{.may_be_empty = false};
    std::size_t count = 0;
    do {
      const bool is_begun = is_whole && takes("^");
      PatternPiece one = read_sequence(is_whole);
      const bool is_ended = is_whole && takes("$");
      if (is_whole && use_.is_search && !is_begun) one.text = any_text() + " " + one.text;
      if (is_whole && use_.is_search && !is_ended) one.text += " " + any_text();
      all.text += (count++ > 0 ? " | " : "") + (one.text.empty() ? "\"\"" : one.text);
      all.size += one.size;
      all.may_be_empty = all.may_be_empty || one.may_be_empty;
    } while (takes("|"));
    --depth_;
    if (count > 1) all.text = "(" + all.text + ")";
    return all;
  }

  PatternPiece read_sequence(bool is_whole) {
    PatternPiece all;
    while (!is_at_end() && pattern_[at_] != '|' && pattern_[at_] != ')') {
      const bool is_end = pattern_[at_] == '$' && is_whole &&
                          (at_ + 1 == pattern_.size() || pattern_[at_ + 1] == '|');
      if (is_end) break;
      const PatternPiece one = read_repeated();
      if (!one.text.empty()) all.text += (all.text.empty() ? "" : " ") + one.text;
      all.size += one.size;
      all.may_be_empty = all.may_be_empty && one.may_be_empty;
    }
    return all;
  }

  PatternPiece read_repeated() {
    PatternPiece piece = read_atom();
    const auto count = read_count();
    if (!count) return piece;
    takes("?");  // as few as possible: the same texts
    if (read_count()) refuse("a quantifier behind a quantifier");
    const auto [least, most] = *count;
    if (piece.text.empty()) return piece;
    if (most == kUnbounded && piece.may_be_empty) {
      refuse("an unbounded repetition of what may be empty");
    }
    const std::int64_t times = most == kUnbounded ? std::max<std::int64_t>(least, 1) : most;
    piece.size *= times;
    if (piece.size > kMostPatternSize) {
      refuse("the pattern's counts are too large", concat(piece.size, " characters"),
             concat("at most ", kMostPatternSize));
    }
    piece.may_be_empty = piece.may_be_empty || least == 0;
    if (most == 0) return {};
    piece.text =
        concat("(", piece.text, "){", least, ",", most == kUnbounded ? "" : concat(most), "}");
    return piece;
  }

  std::optional<std::pair<std::int64_t, std::int64_t>> read_count() {
    if (takes("*")) return {{0, kUnbounded}};
    if (takes("+")) return {{1, kUnbounded}};
    if (takes("?")) return {{0, 1}};
    const std::size_t begin = at_;
    if (!takes("{")) return std::nullopt;
    const auto least = read_number();
    auto most = least;
    if (least && takes(",")) {
      const auto bound = read_number();
      most = bound ? bound : std::optional(kUnbounded);
    }
    if (!least || !takes("}")) {
      at_ = begin;
      refuse("a brace that is no quantifier", "{", "\\{ for the character");
    }
    if (*least > kMostPatternCount || *most > kMostPatternCount ||
        (*most != kUnbounded && *most < *least)) {
      refuse("unusable quantifier", pattern_.substr(begin, at_ - begin),
             concat("counts up to ", kMostPatternCount, " that ascend"));
    }
    return {{*least, *most}};
  }

  std::optional<std::int64_t> read_number() {
    const std::size_t begin = at_;
    std::int64_t number = 0;
    while (!is_at_end() && pattern_[at_] >= '0' && pattern_[at_] <= '9') {
      number = std::min<std::int64_t>(number * 10 + (pattern_[at_++] - '0'), kMostPatternCount + 1);
    }
    return at_ > begin ? std::optional(number) : std::nullopt;
  }

  PatternPiece read_atom() {
    if (takes("(")) return read_group();
    if (takes("[")) return to_piece(read_class());
    if (takes("\\")) return to_piece(read_escape(/*in_class=*/false));
    if (takes(".")) return to_piece(kLineEnds.complement());
    const std::size_t begin = at_;
    const char32_t one = next();
    if (one == '^' || one == '$') {
      refuse("an anchor inside the pattern", pattern_.substr(begin, 1),
             "anchors at the ends of the pattern or of its alternatives");
    }
    if (one == '*' || one == '+' || one == '?') refuse("a quantifier without anything before it");
    if (one == '{') refuse("a brace that is no quantifier", "{", "\\{ for the character");
    return to_piece({{one, one}});
  }

  PatternPiece to_piece(const CodePoints& set) const {
    const std::string text = set.to_grammar(use_.in_json);
    if (text.empty()) refuse("a class that no text can match");
    return {.text = text, .size = 1, .may_be_empty = false};
  }

  PatternPiece read_group() {
    if (takes("?")) {
      const bool is_named = pattern_.compare(at_, 1, "<") == 0 && at_ + 1 < pattern_.size() &&
                            pattern_[at_ + 1] != '=' && pattern_[at_ + 1] != '!';
      if (is_named) {
        const auto end = pattern_.find('>', at_);
        if (end == std::string::npos) refuse("the name of a group doesn't end");
        at_ = end + 1;
      } else if (!takes(":")) {
        refuse("unsupported group", "(?" + pattern_.substr(at_, 2), "(…), (?:…) or (?<name>…)");
      }
    }
    const PatternPiece piece = read_choices(/*is_whole=*/false);
    if (!takes(")")) refuse("a bracket isn't closed", "(");
    return piece;
  }

  CodePoints read_class() {
    const bool is_negated = takes("^");
    CodePoints set;
    while (!takes("]")) {
      const auto first = read_member(set);
      const bool is_range = pattern_.compare(at_, 1, "-") == 0 && at_ + 1 < pattern_.size() &&
                            pattern_[at_ + 1] != ']';
      if (!first || !is_range) {
        if (first) set.add(*first, *first);
        continue;
      }
      ++at_;
      const auto last = read_member(set);
      if (!last || *last < *first) refuse("unusable range in a class");
      set.add(*first, *last);
    }
    return is_negated ? set.complement() : set;
  }

  // One character of a class; nothing where it is a class of its own, which joins the set.
  std::optional<char32_t> read_member(CodePoints& set) {
    if (!takes("\\")) return next();
    if (const auto known = read_known_class()) {
      set.add(*known);
      return std::nullopt;
    }
    return read_character(/*in_class=*/true);
  }

  CodePoints read_escape(bool in_class) {
    if (const auto known = read_known_class()) return *known;
    const char32_t one = read_character(in_class);
    return {{one, one}};
  }

  std::optional<CodePoints> read_known_class() {
    if (takes("d")) return kDigitCharacters;
    if (takes("D")) return kDigitCharacters.complement();
    if (takes("w")) return kWordCharacters;
    if (takes("W")) return kWordCharacters.complement();
    if (takes("s")) return kSpaces;
    if (takes("S")) return kEverySpace.complement();
    return std::nullopt;
  }

  char32_t read_character(bool in_class) {
    const char32_t one = next();
    if (one == 'n') return '\n';
    if (one == 'r') return '\r';
    if (one == 't') return '\t';
    if (one == 'f') return '\f';
    if (one == 'v') return '\v';
    if (one == 'b' && in_class) return '\b';
    if (one == 'x') return read_hex(2);
    if (one == 'u') return read_hex(4);
    const bool is_letter = (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z');
    if (is_letter || (one >= '0' && one <= '9')) {
      refuse("unsupported escape", "\\" + to_utf8(one));
    }
    return one;
  }

  char32_t read_hex(std::size_t digits) {
    char32_t value = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      const char32_t digit = next();
      const bool is_number = digit >= '0' && digit <= '9';
      const char32_t lower = digit | 0x20;
      if (!is_number && (lower < 'a' || lower > 'f')) refuse("not a hexadecimal digit");
      value = value * 16 + (is_number ? digit - '0' : lower - 'a' + 10);
    }
    if (value >= 0xd800 && value <= 0xdfff) refuse("half a surrogate pair");
    return value;
  }

  const std::string& pattern_;
  const PatternUse& use_;
  const std::string& where_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::string pattern_to_grammar(const std::string& pattern, const PatternUse& use,
                               const std::string& where) {
  return PatternReader(pattern, use, where).read();
}

}  // namespace vlm::infer
