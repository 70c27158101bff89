#include "vlm/text/jinja/jinja_cursor.h"

#include <algorithm>
#include <array>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {

using TokenKind = JinjaToken::Kind;

const JinjaToken& JinjaCursor::peek(std::size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}

JinjaToken JinjaCursor::next() {
  const JinjaToken token = peek();
  ++at_;
  return token;
}

bool JinjaCursor::is_operator(std::string_view text, std::size_t ahead) const {
  return peek(ahead).kind == TokenKind::kOperator && peek(ahead).text == text;
}

bool JinjaCursor::is_name(std::string_view text, std::size_t ahead) const {
  return peek(ahead).kind == TokenKind::kName && peek(ahead).text == text;
}

bool JinjaCursor::accept_operator(std::string_view text) {
  const bool found = is_operator(text);
  if (found) ++at_;
  return found;
}

bool JinjaCursor::accept_name(std::string_view text) {
  const bool found = is_name(text);
  if (found) ++at_;
  return found;
}

void JinjaCursor::expect(TokenKind kind, const std::string& wanted) {
  if (!is_kind(kind)) fail_at_token(wanted);
  ++at_;
}

void JinjaCursor::expect_operator(std::string_view text) {
  if (!accept_operator(text)) fail_at_token(concat("\"", text, "\""));
}

void JinjaCursor::expect_name(std::string_view text) {
  if (!accept_name(text)) fail_at_token(concat("\"", text, "\""));
}

std::string JinjaCursor::expect_identifier() {
  static constexpr std::array<std::string_view, 7> words = {"and", "or", "not", "in",
                                                            "is",  "if", "else"};
  const bool reserved = std::find(words.begin(), words.end(), peek().text) != words.end();
  if (!is_kind(TokenKind::kName) || reserved) fail_at_token("a name");
  return next().text;
}

void JinjaCursor::fail(const std::string& what, const std::string& got) const {
  throw Error({.what = what, .where = concat(where_, ":", peek().line), .got = got});
}

void JinjaCursor::fail_at_token(const std::string& wanted) const {
  const bool nameless = is_kind(TokenKind::kBlockEnd) || is_kind(TokenKind::kOutputEnd);
  const std::string got = is_kind(TokenKind::kEnd) ? "end of template"
                          : nameless               ? "end of tag"
                                                   : concat("\"", peek().text, "\"");
  throw Error({.what = "chat template can't be read",
               .where = concat(where_, ":", peek().line),
               .got = got,
               .wanted = wanted});
}

JinjaCursor::Level::Level(JinjaCursor& cursor) : cursor_(cursor) {
  if (cursor.depth_ == kMaxDepth) {
    throw Error({.what = "chat template is nested too deeply",
                 .where = concat(cursor.where_, ":", cursor.peek().line),
                 .wanted = concat("at most ", kMaxDepth, " levels")});
  }
  ++cursor.depth_;
}

}  // namespace vlm
