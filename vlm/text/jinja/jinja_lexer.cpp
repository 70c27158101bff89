#include "vlm/text/jinja/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

using TokenKind = JinjaToken::Kind;

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

constexpr std::string_view kSpace = " \t\n\r\f\v";

// "\r\n" and "\r" become "\n"; one newline at the end goes away.
std::string normalize_newlines(const std::string& source) {
  std::string result;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      result += '\n';
    }
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

class Lexer {
 public:
  Lexer(const std::string& source, const std::string& where)
      : source_(normalize_newlines(source)), where_(where) {}

  std::vector<JinjaToken> run() {
    while (at_ < source_.size()) read_text_and_tag();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& got) const {
    throw Error({.what = what, .where = concat(where_, ":", line_), .got = got});
  }

  std::string_view remaining() const { return std::string_view(source_).substr(at_); }

  void advance(std::size_t count) {
    const std::string_view passed = remaining().substr(0, count);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    if (!passed.empty()) line_starts_ = passed.back() == '\n';
    at_ += count;
  }

  void skip_space() {
    advance(std::min(remaining().find_first_not_of(kSpace), remaining().size()));
  }

  void add(TokenKind kind, std::string text) {
    tokens_.push_back({.kind = kind, .text = std::move(text), .line = line_});
  }

  // Text up to the next tag, and that tag.
  void read_text_and_tag() {
    std::size_t length = 0;
    for (; length < remaining().size(); ++length) {
      const std::string_view opening = remaining().substr(length, 2);
      if (opening == "{%" || opening == "{{" || opening == "{#") break;
    }
    std::string text(remaining().substr(0, length));
    if (length == remaining().size()) {
      if (!text.empty()) add(TokenKind::kText, text);
      return advance(length);
    }
    const char type = remaining()[length + 1];
    const std::string_view after = remaining().substr(length + 2);
    const char sign = after.empty() ? ' ' : after[0];
    strip_before_tag(text, type, sign);
    if (!text.empty()) add(TokenKind::kText, text);
    advance(length + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (type == '#') {
      read_comment();
    } else {
      read_tag(type == '{');
    }
  }

  // "{%-" swallows all white space before it; a block or comment alone on its line, its indent.
  void strip_before_tag(std::string& text, char type, char sign) const {
    if (sign == '-') {
      text.erase(text.find_last_not_of(kSpace) + 1);
    } else if (sign != '+' && type != '{') {
      const std::size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
      const bool only_space = text.find_first_not_of(kSpace, line_begin) == std::string::npos;
      if ((line_begin > 0 || line_starts_) && only_space) text.erase(line_begin);
    }
  }

  void read_comment() {
    const std::size_t end = remaining().find("#}");
    if (end == std::string_view::npos) fail("comment has no end", "{#");
    const char sign = end > 0 ? remaining()[end - 1] : ' ';
    advance(end + 2);
    skip_after_tag(sign);
  }

  // What a closing tag swallows: with "-", all white space; else one newline, unless "+".
  void skip_after_tag(char sign) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && !remaining().empty() && remaining()[0] == '\n') {
      advance(1);
    }
  }

  // The inside of {{ … }} or {% … %}.
  void read_tag(bool output) {
    const int first_line = line_;
    add(output ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, "");
    const std::string_view closing = output ? "}}" : "%}";
    int open = 0;  // brackets
    while (true) {
      skip_space();
      if (remaining().empty()) {
        line_ = first_line;
        fail("tag has no end", output ? "{{" : "{%");
      }
      if (open == 0 && read_closing(closing, output)) return;
      read_token(open);
    }
  }

  bool read_closing(std::string_view closing, bool output) {
    const char sign =
        remaining()[0] == '-' || (remaining()[0] == '+' && !output) ? remaining()[0] : ' ';
    const std::size_t length = sign == ' ' ? 0 : 1;
    if (remaining().substr(length, 2) != closing) return false;
    add(output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
    advance(length + 2);
    // Behind an output only "-" swallows anything.
    if (!output || sign == '-') skip_after_tag(sign);
    return true;
  }

  void read_token(int& open) {
    const char c = remaining()[0];
    if (is_name_start(c)) {
      read_name();
    } else if (is_digit(c)) {
      read_integer();
    } else if (c == '\'' || c == '"') {
      read_string(c);
    } else {
      read_operator(open);
    }
  }

  void read_name() {
    std::size_t length = 1;
    while (length < remaining().size() &&
           (is_name_start(remaining()[length]) || is_digit(remaining()[length]))) {
      ++length;
    }
    const std::string name(remaining().substr(0, length));
    if (name == "raw" && tokens_.back().kind == TokenKind::kBlockBegin) {
      fail("tag is not supported", "raw");
    }
    add(TokenKind::kName, name);
    advance(length);
  }

  void read_integer() {
    std::size_t length = 1;
    while (length < remaining().size() &&
           (is_digit(remaining()[length]) || is_name_start(remaining()[length]))) {
      ++length;
    }
    const std::string text(remaining().substr(0, length));
    const bool fraction = length + 1 < remaining().size() && remaining()[length] == '.' &&
                          is_digit(remaining()[length + 1]);
    if (!std::all_of(text.begin(), text.end(), is_digit) || text.size() > 18 || fraction) {
      fail("number is not supported", text);
    }
    add(TokenKind::kInteger, text);
    advance(length);
  }

  void read_string(char quote) {
    std::string value;
    std::size_t i = 1;
    for (; i < remaining().size() && remaining()[i] != quote; ++i) {
      if (remaining()[i] == '\\') {
        i += read_escape(remaining().substr(i), value);
      } else {
        value += remaining()[i];
      }
    }
    if (i >= remaining().size()) fail("string has no end", std::string(remaining().substr(0, 20)));
    add(TokenKind::kString, value);
    advance(i + 1);
  }

  // Appends what an escape stands for; returns how many characters follow the backslash.
  std::size_t read_escape(std::string_view text, std::string& value) const {
    const char c = text.size() > 1 ? text[1] : '\0';
    switch (c) {
      case 'n':
        value += '\n';
        return 1;
      case 't':
        value += '\t';
        return 1;
      case 'r':
        value += '\r';
        return 1;
      case '\\':
      case '\'':
      case '"':
        value += c;
        return 1;
      case 'x':
        return read_hex(text, 2, value);
      case 'u':
        return read_hex(text, 4, value);
      default:
        fail("string escape is not supported", std::string(text.substr(0, 2)));
    }
  }

  std::size_t read_hex(std::string_view text, std::size_t digits, std::string& value) const {
    char32_t code_point = 0;
    for (std::size_t i = 2; i < 2 + digits; ++i) {
      const char c = i < text.size() ? text[i] : ' ';
      const auto digit = std::string_view("0123456789abcdef").find(static_cast<char>(c | 0x20));
      if (c < '0' || digit == std::string_view::npos) {
        fail("string escape is not supported", std::string(text.substr(0, i + 1)));
      }
      code_point = code_point * 16 + static_cast<char32_t>(digit);
    }
    if (code_point >= 0xD800 && code_point < 0xE000) {
      fail("string escape is not supported", std::string(text.substr(0, 6)));
    }
    append_utf8(code_point, value);
    return 1 + digits;
  }

  void read_operator(int& open) {
    constexpr std::array<std::string_view, 26> operators = {
        "==", "!=", ">=", "<=", "//", "**", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ".", ",", ":", "|", ";"};
    for (const std::string_view text : operators) {
      if (remaining().substr(0, text.size()) != text) continue;
      if (text == "(" || text == "[" || text == "{") ++open;
      if (text == ")" || text == "]" || text == "}") --open;
      if (open < 0) fail("bracket has no partner", std::string(text));
      add(TokenKind::kOperator, std::string(text));
      return advance(text.size());
    }
    const auto size = utf8_size(static_cast<unsigned char>(remaining()[0]));
    fail("unexpected character", concat("\"", remaining().substr(0, size), "\""));
  }

  std::string source_;
  const std::string& where_;
  std::vector<JinjaToken> tokens_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;  // the last thing read ended with a newline
};

}  // namespace

std::vector<JinjaToken> tokenize_jinja(const std::string& source, const std::string& where) {
  return Lexer(to_valid_utf8(source), where).run();
}

}  // namespace vlm
