// The position of the parsers (of expressions and statements) in the tokens of a chat template.
//
// Also counts how deep the parsers have called themselves: a template comes from a stranger's file
// and must not exhaust the stack.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vlm/text/jinja/jinja_lexer.h"

namespace vlm {

class JinjaCursor {
 public:
  // Levels of statements in statements, or of an expression in itself.
  static constexpr int kMaxDepth = 100;

  JinjaCursor(std::vector<JinjaToken> tokens, const std::string& where)
      : tokens_(std::move(tokens)), where_(where) {}

  const JinjaToken& peek(std::size_t ahead = 0) const;
  JinjaToken next();

  bool is_kind(JinjaToken::Kind kind) const { return peek().kind == kind; }
  bool is_operator(std::string_view text, std::size_t ahead = 0) const;
  bool is_name(std::string_view text, std::size_t ahead = 0) const;

  // Steps over the token and returns true when it is the one asked for.
  bool accept_operator(std::string_view text);
  bool accept_name(std::string_view text);

  // Steps over the token; throws Error when it is another one.
  void expect(JinjaToken::Kind kind, const std::string& wanted);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  std::string expect_identifier();  // a name that isn't a word of the language

  // Throws Error at this line: for what isn't supported, and for a token that can't stand here.
  [[noreturn]] void fail(const std::string& what, const std::string& got) const;
  [[noreturn]] void fail_at_token(const std::string& wanted) const;

  // Counts one level of recursion as long as it lives. The constructor throws Error over kMaxDepth.
  class Level {
   public:
    explicit Level(JinjaCursor& cursor);
    ~Level() { --cursor_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    JinjaCursor& cursor_;
  };

 private:
  std::vector<JinjaToken> tokens_;  // the last is kEnd
  std::string where_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace vlm
