#include "vlm/text/jinja/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

using TokenKind = JinjaToken::Kind;

constexpr std::size_t kMaxSourceBytes = 64 << 10;

class StatementParser {
 public:
  explicit StatementParser(JinjaCursor cursor) : cursor_(std::move(cursor)) {}

  JinjaBody run() {
    JinjaBody body = parse_body({});
    if (!cursor_.is_kind(TokenKind::kEnd)) {
      cursor_.fail("tag without its beginning", concat("\"", block_name(), "\""));
    }
    return body;
  }

 private:
  // The name of the block that begins here: "if" of {% if …
  std::string block_name() const {
    return cursor_.is_kind(TokenKind::kBlockBegin) ? cursor_.peek(1).text : "";
  }

  // Statements up to a block of one of the names (which is left) or the end.
  JinjaBody parse_body(std::initializer_list<std::string_view> ends) {
    const JinjaCursor::Level level(cursor_);
    JinjaBody body;
    while (!cursor_.is_kind(TokenKind::kEnd)) {
      const std::string name = block_name();
      if (std::find(ends.begin(), ends.end(), name) != ends.end()) break;
      if (cursor_.is_kind(TokenKind::kBlockBegin)) {
        if (!parse_block(name, body)) break;
      } else {
        body.push_back(parse_text_or_output());
      }
    }
    return body;
  }

  JinjaStatement parse_text_or_output() {
    JinjaStatement statement{.line = cursor_.peek().line};
    if (cursor_.is_kind(TokenKind::kText)) {
      statement.text = cursor_.next().text;
      return statement;
    }
    cursor_.expect(TokenKind::kOutputBegin, "\"{{\"");
    statement.kind = JinjaStatement::Kind::kOutput;
    statement.expression = parse_jinja_expression(cursor_);
    cursor_.expect(TokenKind::kOutputEnd, "\"}}\"");
    return statement;
  }

  // False for a block that ends another.
  bool parse_block(const std::string& name, JinjaBody& body) {
    const bool is_end = name.starts_with("end") || name == "elif" || name == "else";
    if (is_end) return false;
    cursor_.next();
    if (cursor_.accept_name("if")) {
      body.push_back(parse_if());
    } else if (cursor_.accept_name("for")) {
      body.push_back(parse_for());
    } else if (cursor_.accept_name("set")) {
      body.push_back(parse_set());
    } else if (cursor_.accept_name(
                   "generation")) {  // transformers' mark of what the assistant says
      end_block();
      for (JinjaStatement& statement : parse_body({"endgeneration"})) {
        body.push_back(std::move(statement));
      }
      end_with("endgeneration");
    } else {
      cursor_.fail("tag is not supported", "\"" + name + "\"");
    }
    return true;
  }

  void end_block() { cursor_.expect(TokenKind::kBlockEnd, "\"%}\""); }
  void end_with(std::string_view name) {
    if (block_name() != name) cursor_.fail_at_token(concat("\"{% ", name, " %}\""));
    cursor_.next();
    cursor_.expect_name(name);
    end_block();
  }

  // Behind "if" or "elif", up to and with "endif".
  JinjaStatement parse_if() {
    const JinjaCursor::Level level(cursor_);
    JinjaStatement statement{.kind = JinjaStatement::Kind::kIf, .line = cursor_.peek().line};
    statement.expression = parse_jinja_expression(cursor_);
    end_block();
    statement.body = parse_body({"elif", "else", "endif"});
    if (block_name() == "elif") {
      cursor_.next();
      cursor_.next();
      statement.otherwise.push_back(parse_if());
      return statement;
    }
    parse_else(statement, "endif");
    return statement;
  }

  void parse_else(JinjaStatement& statement, std::string_view end) {
    if (block_name() == "else") {
      cursor_.next();
      cursor_.next();
      end_block();
      statement.otherwise = parse_body({end});
    }
    end_with(end);
  }

  JinjaStatement parse_for() {
    JinjaStatement statement{.kind = JinjaStatement::Kind::kFor, .line = cursor_.peek().line};
    statement.name = cursor_.expect_identifier();
    if (cursor_.is_operator(","))
      cursor_.fail("unpacking in for is not supported", "\"" + statement.name + ",\"");
    cursor_.expect_name("in");
    statement.expression = parse_jinja_iterable(cursor_);
    if (cursor_.is_name("if") || cursor_.is_name("recursive")) {
      cursor_.fail("for … " + cursor_.peek().text + " is not supported",
                   "\"" + cursor_.peek().text + "\"");
    }
    end_block();
    statement.body = parse_body({"else", "endfor"});
    parse_else(statement, "endfor");
    return statement;
  }

  JinjaStatement parse_set() {
    JinjaStatement statement{.kind = JinjaStatement::Kind::kSet, .line = cursor_.peek().line};
    statement.name = cursor_.expect_identifier();
    if (cursor_.accept_operator(".")) statement.attribute = cursor_.expect_identifier();
    if (!cursor_.is_operator("="))
      cursor_.fail("this form of set is not supported", "\"" + cursor_.peek().text + "\"");
    cursor_.next();
    statement.expression = parse_jinja_expression(cursor_);
    end_block();
    return statement;
  }

  JinjaCursor cursor_;
};

}  // namespace

JinjaBody parse_jinja(const std::string& source, const std::string& where) {
  if (source.size() > kMaxSourceBytes) {
    throw Error({.what = "chat template is too large",
                 .where = where,
                 .got = concat(source.size(), " bytes"),
                 .wanted = concat("at most ", kMaxSourceBytes)});
  }
  return StatementParser(JinjaCursor(tokenize_jinja(source, where), where)).run();
}

}  // namespace vlm
