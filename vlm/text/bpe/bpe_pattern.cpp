#include "vlm/text/bpe/bpe_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/text/json_access.h"
#include "vlm/text/unicode.h"

namespace vlm {
namespace {

constexpr std::size_t kMaxRegexBytes = 1 << 16;
constexpr std::size_t kJitStackStart = 32 << 10;
constexpr std::size_t kJitStackMax = 16 << 20;
// Steps of backtracking a match may take: enough for long runs of spaces, an end for (a+)+b.
constexpr std::uint32_t kMinMatchLimit = 20'000'000;

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

  std::string_view rest() const { return std::string_view(regex_).substr(at_); }

  void take(std::size_t count) {
    result_ += rest().substr(0, count);
    at_ += count;
  }

  void read_escape() {
    if (at_ + 1 == regex_.size()) refuse("\\");
    class_is_empty_ = false;
    const char c = regex_[at_ + 1];
    constexpr std::string_view same_in_both = "sSdDrntfae";
    const bool letter_or_digit =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == 'p' || c == 'P') return read_property();
    if (c == 'u' || c == 'x') return read_code_point();
    if (letter_or_digit && same_in_both.find(c) == std::string_view::npos) {
      refuse(std::string("\\") + c);
    }
    take(1 + utf8_size(static_cast<unsigned char>(c)));
  }

  void read_property() {
    const std::size_t close = rest().find('}');
    const bool braces = rest().size() > 2 && rest()[2] == '{' && close != std::string_view::npos;
    if (!braces) refuse(std::string(rest().substr(0, 3)));
    if (!is_category(rest().substr(3, close - 3))) refuse(std::string(rest().substr(0, close + 1)));
    take(close + 1);
  }

  // \uHHHH, \xHH (ASCII only: above, Oniguruma means a byte) and \x{H…}.
  void read_code_point() {
    const bool braces = rest().substr(0, 3) == "\\x{";
    const std::size_t begin = braces ? 3 : 2;
    const std::size_t digits = rest().substr(begin).find_first_not_of("0123456789abcdefABCDEF");
    const std::size_t count = std::min(digits, rest().size() - begin);
    const std::size_t wanted = rest()[1] == 'u' ? 4 : 2;
    const bool closed = digits != std::string_view::npos && rest()[begin + digits] == '}';
    const bool fits = braces ? closed && count > 0 && count <= 6 : count >= wanted;
    if (!fits) refuse(std::string(rest().substr(0, begin)));
    const std::string hex(rest().substr(begin, braces ? count : wanted));
    if (!braces && wanted == 2 && hex[0] > '7') refuse("\\x" + hex);
    result_ += "\\x{" + hex + "}";
    at_ += begin + hex.size() + (braces ? 1 : 0);
  }

  void read_in_class(char c) {
    if (c == '[') refuse("[ within [ ]");
    if (rest().substr(0, 2) == "&&") refuse("&&");
    if (c == ']' && class_is_empty_) refuse("[]");
    if (c == ']') in_class_ = false;
    class_is_empty_ = false;
    take(utf8_size(static_cast<unsigned char>(c)));
  }

  void read_outside(char c) {
    switch (c) {
      case '[':
        in_class_ = true;
        class_is_empty_ = true;
        return take(rest().substr(0, 2) == "[^" ? 2 : 1);
      case '(':
        return read_group();
      case '{':
        return read_repeat();
      case '^':
      case '$':
        refuse(std::string(1, c));
      default:
        take(utf8_size(static_cast<unsigned char>(c)));
    }
  }

  void read_group() {
    if (rest().substr(0, 2) == "(*") refuse("(*");
    if (rest().substr(0, 2) != "(?") return take(1);
    for (const std::string_view opening :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (rest().substr(0, opening.size()) == opening) return take(opening.size());
    }
    refuse(std::string(rest().substr(0, 3)));
  }

  // {n}, {n,} or {n,m}. What may follow them differs: a{2}? and a{2}+ are refused.
  void read_repeat() {
    const std::size_t close = rest().find('}');
    const std::string_view body =
        close == std::string_view::npos ? "" : rest().substr(1, close - 1);
    const bool digits_first = !body.empty() && body[0] >= '0' && body[0] <= '9';
    const bool well_formed = digits_first &&
                             body.find_first_not_of("0123456789,") == std::string_view::npos &&
                             std::count(body.begin(), body.end(), ',') <= 1;
    if (!well_formed) refuse("{");
    const std::string_view after = rest().substr(close + 1, 1);
    const bool exact = body.find(',') == std::string_view::npos;
    if (after == "+" || after == "*" || (after == "?" && exact)) {
      refuse(std::string(rest().substr(0, close + 2)));
    }
    take(close + 1);
  }

  const std::string& regex_;
  const std::string& where_;
  std::string result_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  bool class_is_empty_ = false;
};

// What a match writes to, one for each thread.
struct MatchState {
  MatchState()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)) {
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
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

struct Pattern::Regex {
  Regex(const std::string& regex, const std::string& place) : where(place) {
    if (regex.size() > kMaxRegexBytes) {
      throw Error({.what = "regular expression is too long",
                   .where = where,
                   .got = concat(regex.size(), " bytes"),
                   .wanted = concat("at most ", kMaxRegexBytes)});
    }
    const std::string translated = Translator(regex, where).run();
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                         PCRE2_UTF | PCRE2_UCP, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (code == nullptr) refuse(regex, error);
    // Without executable memory this fails, and matching falls back to the interpreter.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  }
  ~Regex() { pcre2_code_free(code); }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  [[noreturn]] void refuse(const std::string& regex, int error) const {
    unsigned char message[256] = "";
    pcre2_get_error_message(error, message, sizeof message);
    throw Error({.what = concat("not a regular expression: ", message),
                 .where = where,
                 .got = concat("\"", regex, "\"")});
  }

  // The match at or after `from`; false where there is none.
  bool find(std::string_view text, std::size_t from, Span& match) const {
    thread_local MatchState state;
    const auto limit = std::min<std::size_t>(text.size() * 16, 0xFFFFFFFF);
    pcre2_set_match_limit(state.context,
                          std::max(kMinMatchLimit, static_cast<std::uint32_t>(limit)));
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::uint32_t options = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(code, subject, text.size(), from, options, state.data, state.context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      options |= PCRE2_NO_JIT;
      rc = pcre2_match(code, subject, text.size(), from, options, state.data, state.context);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc < 0) {
      throw Error({.what = "regular expression needs too many steps for this text",
                   .where = where,
                   .got = concat("code ", rc, " for ", text.size(), " bytes")});
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data);
    match = {.begin = ends[0], .end = ends[1]};
    return true;
  }

  pcre2_code* code = nullptr;
  std::string where;
};

Pattern::Pattern() = default;
Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

Pattern Pattern::from_regex(const std::string& regex, const std::string& where) {
  Pattern pattern;
  pattern.regex_ = std::make_unique<Regex>(regex, where);
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
      if (!regex_->find(subject, from, match)) break;
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
