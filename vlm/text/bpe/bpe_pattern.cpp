#include "vlm/text/bpe/bpe_pattern.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/core/regex.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

bool is_category(std::string_view name) {
  static const std::set<std::string_view> names = {
      "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd",
      "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm",
      "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc", "Cf", "Co"};
  return names.contains(name);
}

// Reads a regular expression in Ruby syntax, lets pass what PCRE2 reads in the same way, translates
// \uHHHH, and refuses the rest.
class Translator {
 public:
  Translator(const std::string& regex, const std::string& where) : regex_(regex), where_(where) {}

  std::string run() {
    while (at_ < regex_.size()) {
      const char c = regex_[at_];
      if (c == '\\') {
        read_escape();
      } else if (in_class_) {
        read_in_class(c);
      } else {
        read_outside(c);
      }
    }
    return result_;
  }

 private:
  [[noreturn]] void refuse(const std::string& construct) const {
    throw Error({.what = "regular expression uses a construct that is not supported",
                 .where = where_,
                 .got = concat("\"", construct, "\" at byte ", at_, " of \"", regex_, "\"")});
  }

  std::string_view remaining() const { return std::string_view(regex_).substr(at_); }

  void copy(std::size_t count) {
    result_ += remaining().substr(0, count);
    at_ += count;
  }

  void read_escape() {
    if (at_ + 1 == regex_.size()) refuse("\\");
    class_is_empty_ = false;
    const char c = regex_[at_ + 1];
    constexpr std::string_view shared_escapes = "sSdDrntfae";
    const bool letter_or_digit =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == 'p' || c == 'P') return read_property();
    if (c == 'u' || c == 'x') return read_code_point();
    if (letter_or_digit && shared_escapes.find(c) == std::string_view::npos) {
      refuse(std::string("\\") + c);
    }
    copy(1 + utf8_size(static_cast<unsigned char>(c)));
  }

  void read_property() {
    const std::size_t close = remaining().find('}');
    const bool braces =
        remaining().size() > 2 && remaining()[2] == '{' && close != std::string_view::npos;
    if (!braces) refuse(std::string(remaining().substr(0, 3)));
    if (!is_category(remaining().substr(3, close - 3)))
      refuse(std::string(remaining().substr(0, close + 1)));
    copy(close + 1);
  }

  // \uHHHH, \xHH (ASCII only: above, Oniguruma means a byte) and \x{H…}.
  void read_code_point() {
    const bool braces = remaining().substr(0, 3) == "\\x{";
    const std::size_t begin = braces ? 3 : 2;
    const std::size_t digits =
        remaining().substr(begin).find_first_not_of("0123456789abcdefABCDEF");
    const std::size_t count = std::min(digits, remaining().size() - begin);
    const std::size_t wanted = remaining()[1] == 'u' ? 4 : 2;
    const bool closed = digits != std::string_view::npos && remaining()[begin + digits] == '}';
    const bool fits = braces ? closed && count > 0 && count <= 6 : count >= wanted;
    if (!fits) refuse(std::string(remaining().substr(0, begin)));
    const std::string hex(remaining().substr(begin, braces ? count : wanted));
    if (!braces && wanted == 2 && hex[0] > '7') refuse("\\x" + hex);
    result_ += "\\x{" + hex + "}";
    at_ += begin + hex.size() + (braces ? 1 : 0);
  }

  void read_in_class(char c) {
    if (c == '[') refuse("[ within [ ]");
    if (remaining().substr(0, 2) == "&&") refuse("&&");
    if (c == ']' && class_is_empty_) refuse("[]");
    if (c == ']') in_class_ = false;
    class_is_empty_ = false;
    copy(utf8_size(static_cast<unsigned char>(c)));
  }

  void read_outside(char c) {
    switch (c) {
      case '[':
        in_class_ = true;
        class_is_empty_ = true;
        return copy(remaining().substr(0, 2) == "[^" ? 2 : 1);
      case '(':
        return read_group();
      case '{':
        return read_repeat();
      case '^':
      case '$':
        refuse(std::string(1, c));
      default:
        copy(utf8_size(static_cast<unsigned char>(c)));
    }
  }

  void read_group() {
    if (remaining().substr(0, 2) == "(*") refuse("(*");
    if (remaining().substr(0, 2) != "(?") return copy(1);
    for (const std::string_view opening :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (remaining().substr(0, opening.size()) == opening) return copy(opening.size());
    }
    refuse(std::string(remaining().substr(0, 3)));
  }

  // {n}, {n,} or {n,m}. What may follow them differs: a{2}? and a{2}+ are refused.
  void read_repeat() {
    const std::size_t close = remaining().find('}');
    const std::string_view body =
        close == std::string_view::npos ? "" : remaining().substr(1, close - 1);
    const bool digits_first = !body.empty() && body[0] >= '0' && body[0] <= '9';
    const bool well_formed = digits_first &&
                             body.find_first_not_of("0123456789,") == std::string_view::npos &&
                             std::count(body.begin(), body.end(), ',') <= 1;
    if (!well_formed) refuse("{");
    const std::string_view after = remaining().substr(close + 1, 1);
    const bool exact = body.find(',') == std::string_view::npos;
    if (after == "+" || after == "*" || (after == "?" && exact)) {
      refuse(std::string(remaining().substr(0, close + 2)));
    }
    copy(close + 1);
  }

  const std::string& regex_;
  const std::string& where_;
  std::string result_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  bool class_is_empty_ = false;
};

// `text` with newer code points replaced by older ones of the same length; `copy` keeps it alive.
std::string_view with_older_code_points(std::string_view text, std::string& copy) {
  std::size_t at = 0;
  while (at < text.size()) {
    // Nothing below U+0800 (lead bytes under E0) is affected.
    if (static_cast<unsigned char>(text[at]) < 0xE0) {
      ++at;
      continue;
    }
    const std::size_t begin = at;
    const auto older = older_equivalent(next_code_point(text, at));
    if (!older) continue;
    if (copy.empty()) copy = text;
    copy.replace(begin, at - begin, to_utf8(*older));
  }
  return copy.empty() ? text : std::string_view(copy);
}

}  // namespace

Pattern::Pattern() = default;
Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

Pattern Pattern::from_regex(const std::string& regex, const std::string& where) {
  Pattern pattern;
  const std::string translated = Translator(regex, where).run();
  pattern.regex_ = std::make_unique<Regex>(Regex::compile(translated, where, regex));
  return pattern;
}

Pattern Pattern::from_text(std::string text) {
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

void Pattern::find_all(std::string_view text, std::vector<Span>& matches) const {
  matches.clear();
  std::string copy;
  const std::string_view subject = regex_ ? with_older_code_points(text, copy) : text;
  std::size_t from = 0;
  Span match;
  while (from <= subject.size()) {
    if (regex_) {
      const auto found = regex_->find(subject, from);
      if (!found) break;
      match = {.begin = found->first, .end = found->second};
    } else {
      match.begin = subject.find(literal_, from);
      if (match.begin == std::string_view::npos) break;
      match.end = match.begin + literal_.size();
    }
    // An empty match right behind the last match doesn't count; the search goes on one character
    // later.
    const bool empty = match.begin == match.end;
    if (empty && !matches.empty() && matches.back().end == match.end) {
      if (from == subject.size()) break;
      from += utf8_size(static_cast<unsigned char>(subject[from]));
    } else {
      matches.push_back(match);
      from = match.end;
    }
  }
}

std::string Pattern::replace_all(const std::string& text, const std::string& content) const {
  std::vector<Span> matches;
  find_all(text, matches);
  std::string result;
  std::size_t done = 0;
  for (const Span& match : matches) {
    result.append(text, done, match.begin - done);
    result += content;
    done = match.end;
  }
  return result.append(text, done);
}

Pattern parse_pattern(const Json& json, const std::string& where) {
  if (find_member(json, "Regex", where) != nullptr) {
    return Pattern::from_regex(get_string(json, "Regex", where), where);
  }
  const std::string text = get_string(json, "String", where);
  if (text.empty()) throw Error({.what = "pattern is empty", .where = where});
  return Pattern::from_text(text);
}

bool is_word_character(char32_t code_point) {
  static const Pattern word =
      Pattern::from_regex(R"([\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}])", "word characters");
  // The rest of Alphabetic (circled and squared letters) and Join_Control.
  const bool other_alphabetic = (code_point >= 0x24B6 && code_point <= 0x24E9) ||
                                (code_point >= 0x1F130 && code_point <= 0x1F149) ||
                                (code_point >= 0x1F150 && code_point <= 0x1F169) ||
                                (code_point >= 0x1F170 && code_point <= 0x1F189);
  if (other_alphabetic || code_point == 0x200C || code_point == 0x200D) return true;
  std::vector<Span> matches;
  word.find_all(to_utf8(code_point), matches);
  return !matches.empty();
}

}  // namespace vlm
