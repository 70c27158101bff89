#include "vlm/text/jinja/jinja_expression.h"

#include <algorithm>

#include "vlm/core/concat.h"

namespace vlm {
namespace {

using Kind = JinjaExpression::Kind;
using TokenKind = JinjaToken::Kind;

constexpr int kMaxTreeDepth = 2 * JinjaCursor::kMaxDepth;

class ExpressionParser {
 public:
  explicit ExpressionParser(JinjaCursor& cursor) : cursor_(cursor) {}

  JinjaExpressionPtr make(Kind kind, std::string name = "") const {
    auto expression = std::make_unique<JinjaExpression>();
    expression->kind = kind;
    expression->name = std::move(name);
    expression->line = cursor_.peek().line;
    return expression;
  }

  // Puts `operand` under `parent`; a null operand (an open slice) stays null.
  void attach(JinjaExpression& parent, JinjaExpressionPtr operand) const {
    if (operand) note_depth(parent, *operand);
    parent.operands.push_back(std::move(operand));
  }
  void note_depth(JinjaExpression& parent, const JinjaExpression& child) const {
    parent.depth = std::max(parent.depth, child.depth + 1);
    if (parent.depth > kMaxTreeDepth)
      cursor_.fail("expression is too long", "\"" + cursor_.peek().text + "\"");
  }

  // a, b is a list here: nothing in these templates tells tuples from lists.
  JinjaExpressionPtr parse_tuple() {
    JinjaExpressionPtr first = parse_condition();
    if (!cursor_.is_operator(",")) return first;
    JinjaExpressionPtr list = make(Kind::kList);
    attach(*list, std::move(first));
    while (cursor_.accept_operator(",")) {
      const bool ends = cursor_.is_operator(")") || cursor_.is_kind(TokenKind::kBlockEnd) ||
                        cursor_.is_kind(TokenKind::kOutputEnd);
      if (ends) break;
      attach(*list, parse_condition());
    }
    return list;
  }

  JinjaExpressionPtr parse_condition() {
    const JinjaCursor::Level level(cursor_);
    JinjaExpressionPtr value = parse_or();
    while (cursor_.accept_name("if")) {
      JinjaExpressionPtr condition = make(Kind::kCondition);
      attach(*condition, parse_or());
      attach(*condition, std::move(value));
      attach(*condition, cursor_.accept_name("else") ? parse_condition() : nullptr);
      value = std::move(condition);
    }
    return value;
  }

  JinjaExpressionPtr parse_or() {
    JinjaExpressionPtr left = parse_and();
    while (cursor_.accept_name("or")) left = binary("or", std::move(left), parse_and());
    return left;
  }
  JinjaExpressionPtr parse_and() {
    JinjaExpressionPtr left = parse_not();
    while (cursor_.accept_name("and")) left = binary("and", std::move(left), parse_not());
    return left;
  }

  JinjaExpressionPtr binary(std::string name, JinjaExpressionPtr left, JinjaExpressionPtr right) {
    JinjaExpressionPtr node = make(Kind::kBinary, std::move(name));
    attach(*node, std::move(left));
    attach(*node, std::move(right));
    return node;
  }

  JinjaExpressionPtr parse_not() {
    const JinjaCursor::Level level(cursor_);
    if (!cursor_.accept_name("not")) return parse_compare();
    JinjaExpressionPtr node = make(Kind::kUnary, "not");
    attach(*node, parse_not());
    return node;
  }

  JinjaExpressionPtr parse_compare() {
    JinjaExpressionPtr first = parse_sum();
    JinjaExpressionPtr node = make(Kind::kCompare);
    for (std::string name = parse_comparison_operator(); !name.empty();
         name = parse_comparison_operator()) {
      if (first) attach(*node, std::move(first));
      node->names.push_back(name);
      attach(*node, parse_sum());
    }
    return first ? std::move(first) : std::move(node);
  }

  // The comparison that stands here, or "".
  std::string parse_comparison_operator() {
    for (const char* text : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (cursor_.accept_operator(text)) return text;
    }
    if (cursor_.accept_name("in")) return "in";
    if (!cursor_.is_name("not") || !cursor_.is_name("in", 1)) return "";
    cursor_.next();
    cursor_.next();
    return "not in";
  }

  JinjaExpressionPtr parse_sum() {
    JinjaExpressionPtr left = parse_concat();
    while (cursor_.is_operator("+") || cursor_.is_operator("-")) {
      const std::string name = cursor_.next().text;
      left = binary(name, std::move(left), parse_concat());
    }
    return left;
  }
  JinjaExpressionPtr parse_concat() {
    JinjaExpressionPtr left = parse_product();
    while (cursor_.accept_operator("~")) left = binary("~", std::move(left), parse_product());
    return left;
  }
  JinjaExpressionPtr parse_product() {
    JinjaExpressionPtr left = parse_unary(true);
    while (cursor_.is_operator("*") || cursor_.is_operator("//") || cursor_.is_operator("%")) {
      const std::string name = cursor_.next().text;
      left = binary(name, std::move(left), parse_unary(true));
    }
    if (cursor_.is_operator("/") || cursor_.is_operator("**")) {
      cursor_.fail("operator is not supported", "\"" + cursor_.peek().text + "\"");
    }
    return left;
  }

  JinjaExpressionPtr parse_unary(bool with_filter) {
    const JinjaCursor::Level level(cursor_);
    JinjaExpressionPtr node;
    if (cursor_.is_operator("-") || cursor_.is_operator("+")) {
      node = make(Kind::kUnary, cursor_.next().text);
      attach(*node, parse_unary(false));
    } else {
      node = parse_primary();
    }
    node = parse_postfix(std::move(node));
    return with_filter ? parse_filters(std::move(node)) : std::move(node);
  }

  JinjaExpressionPtr parse_primary() {
    if (cursor_.is_kind(TokenKind::kString)) {
      JinjaExpressionPtr node = make(Kind::kLiteral);
      std::string text;
      while (cursor_.is_kind(TokenKind::kString)) text += cursor_.next().text;
      node->value = JinjaValue(std::move(text));
      return node;
    }
    if (cursor_.is_kind(TokenKind::kInteger)) {
      JinjaExpressionPtr node = make(Kind::kLiteral);
      node->value = JinjaValue(static_cast<std::int64_t>(std::stoll(cursor_.next().text)));
      return node;
    }
    if (cursor_.is_kind(TokenKind::kName)) return parse_name();
    if (cursor_.accept_operator("(")) return parse_parentheses();
    if (cursor_.accept_operator("[")) return parse_list();
    if (cursor_.accept_operator("{")) return parse_dict();
    cursor_.fail_at_token("an expression");
  }

  JinjaExpressionPtr parse_parentheses() {
    if (cursor_.accept_operator(")")) return make(Kind::kList);
    JinjaExpressionPtr inner = parse_tuple();
    cursor_.expect_operator(")");
    return inner;
  }

  JinjaExpressionPtr parse_name() {
    JinjaExpressionPtr node = make(Kind::kLiteral);
    const std::string& name = cursor_.peek().text;
    if (name == "true" || name == "True") {
      node->value = JinjaValue(true);
    } else if (name == "false" || name == "False") {
      node->value = JinjaValue(false);
    } else if (name == "none" || name == "None") {
      node->value = JinjaValue(JinjaValue::None{});
    } else {
      node->kind = Kind::kName;
      node->name = cursor_.expect_identifier();
      return node;
    }
    cursor_.next();
    return node;
  }

  JinjaExpressionPtr parse_list() {
    JinjaExpressionPtr list = make(Kind::kList);
    while (!cursor_.accept_operator("]")) {
      if (!list->operands.empty()) cursor_.expect_operator(",");
      if (cursor_.accept_operator("]")) break;
      attach(*list, parse_condition());
    }
    return list;
  }

  JinjaExpressionPtr parse_dict() {
    JinjaExpressionPtr dict = make(Kind::kDict);
    while (!cursor_.accept_operator("}")) {
      if (!dict->arguments.empty()) cursor_.expect_operator(",");
      if (cursor_.accept_operator("}")) break;
      if (!cursor_.is_kind(TokenKind::kString)) cursor_.fail_at_token("a string as key");
      JinjaArgument entry{.name = cursor_.next().text, .value = nullptr};
      cursor_.expect_operator(":");
      entry.value = parse_condition();
      note_depth(*dict, *entry.value);
      dict->arguments.push_back(std::move(entry));
    }
    return dict;
  }

  JinjaExpressionPtr parse_postfix(JinjaExpressionPtr node) {
    while (true) {
      if (cursor_.accept_operator(".")) {
        JinjaExpressionPtr outer = make(Kind::kAttribute, parse_attribute());
        attach(*outer, std::move(node));
        node = std::move(outer);
      } else if (cursor_.accept_operator("[")) {
        node = parse_subscript(std::move(node));
      } else if (cursor_.accept_operator("(")) {
        JinjaExpressionPtr call = make(Kind::kCall);
        attach(*call, std::move(node));
        parse_arguments(*call);
        node = std::move(call);
      } else {
        return node;
      }
    }
  }

  std::string parse_attribute() {
    if (!cursor_.is_kind(TokenKind::kName)) cursor_.fail_at_token("the name of an attribute");
    return cursor_.next().text;
  }

  JinjaExpressionPtr parse_subscript(JinjaExpressionPtr object) {
    JinjaExpressionPtr first = cursor_.is_operator(":") ? nullptr : parse_condition();
    if (!cursor_.accept_operator(":")) {
      JinjaExpressionPtr item = make(Kind::kItem);
      attach(*item, std::move(object));
      attach(*item, std::move(first));
      cursor_.expect_operator("]");
      return item;
    }
    JinjaExpressionPtr slice = make(Kind::kSlice);
    attach(*slice, std::move(object));
    attach(*slice, std::move(first));
    attach(*slice,
           cursor_.is_operator("]") || cursor_.is_operator(":") ? nullptr : parse_condition());
    const bool has_step = cursor_.accept_operator(":") && !cursor_.is_operator("]");
    attach(*slice, has_step ? parse_condition() : nullptr);
    cursor_.expect_operator("]");
    return slice;
  }

  // Behind "(": up to and with ")".
  void parse_arguments(JinjaExpression& call) {
    bool first = true;
    while (!cursor_.accept_operator(")")) {
      if (!first) cursor_.expect_operator(",");
      first = false;
      if (cursor_.accept_operator(")")) break;
      JinjaArgument argument;
      if (cursor_.is_kind(TokenKind::kName) && cursor_.is_operator("=", 1)) {
        argument.name = cursor_.next().text;
        cursor_.next();
      }
      argument.value = parse_condition();
      note_depth(call, *argument.value);
      call.arguments.push_back(std::move(argument));
    }
  }

  // "value | name(…)", "value is name", "value is not name" and calls, as often as they come.
  JinjaExpressionPtr parse_filters(JinjaExpressionPtr node) {
    while (true) {
      if (cursor_.accept_operator("|")) {
        JinjaExpressionPtr filter = make(Kind::kFilter, cursor_.expect_identifier());
        attach(*filter, std::move(node));
        if (cursor_.accept_operator("(")) parse_arguments(*filter);
        node = std::move(filter);
      } else if (cursor_.accept_name("is")) {
        node = parse_test(std::move(node));
      } else {
        return node;
      }
    }
  }

  JinjaExpressionPtr parse_test(JinjaExpressionPtr value) {
    const bool negated = cursor_.accept_name("not");
    // "in" is a test too, but no template of the family spells it so.
    JinjaExpressionPtr test = make(Kind::kTest, cursor_.expect_identifier());
    attach(*test, std::move(value));
    if (cursor_.is_operator("(") || cursor_.is_kind(TokenKind::kString) ||
        cursor_.is_kind(TokenKind::kInteger)) {
      cursor_.fail("test with an argument is not supported", "\"" + test->name + "\"");
    }
    if (!negated) return test;
    JinjaExpressionPtr node = make(Kind::kUnary, "not");
    attach(*node, std::move(test));
    return node;
  }

  JinjaCursor& cursor_;
};

}  // namespace

JinjaExpressionPtr parse_jinja_expression(JinjaCursor& cursor) {
  return ExpressionParser(cursor).parse_tuple();
}

JinjaExpressionPtr parse_jinja_iterable(JinjaCursor& cursor) {
  return ExpressionParser(cursor).parse_or();
}

}  // namespace vlm
