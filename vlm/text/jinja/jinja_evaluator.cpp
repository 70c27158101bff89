#include "vlm/text/jinja/jinja_evaluator.h"

#include <algorithm>
#include <cmath>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/text/jinja/jinja_clock.h"

namespace vlm {
namespace {

constexpr const char* kClockFunction = "strftime_now";

using Kind = JinjaExpression::Kind;
using List = JinjaValue::List;

// Statements, iterations, expressions, and every 64 bytes or item of what an expression gives.
constexpr std::size_t kMaxSteps = 2'000'000;

std::string quoted(const std::string& text) {
  return concat("\"", text, "\"");
}

// Python's // and %: rounded towards minus infinity.
std::int64_t floor_divide(std::int64_t left, std::int64_t right) {
  const std::int64_t quotient = left / right;
  return left % right != 0 && (left % right < 0) != (right < 0) ? quotient - 1 : quotient;
}

JinjaValue calculate(const std::string& name, std::int64_t left, std::int64_t right,
                     const JinjaPlace& place) {
  std::int64_t result = 0;
  bool overflow = false;
  if (name == "+") {
    overflow = __builtin_add_overflow(left, right, &result);
  } else if (name == "-") {
    overflow = __builtin_sub_overflow(left, right, &result);
  } else if (name == "*") {
    overflow = __builtin_mul_overflow(left, right, &result);
  } else {
    if (right == 0) place.fail("division by zero", quoted(name));
    overflow = right == -1 && left == INT64_MIN;
    if (!overflow) {
      result = floor_divide(left, right);
      if (name == "%") result = left - result * right;
    }
  }
  if (overflow) place.fail("integer is too large", quoted(name));
  return result;
}

bool contains(const JinjaValue& container, const JinjaValue& item, const JinjaPlace& place) {
  if (const auto* text = container.string()) {
    if (item.string() == nullptr) place.fail("\"in\" a string wants a string", item.type_name());
    return text->find(*item.string()) != std::string::npos;
  }
  const auto items = container.items();
  if (!items) place.fail("\"in\" wants a list, a dict or a string", container.type_name());
  return std::find(items->begin(), items->end(), item) != items->end();
}

bool is_less(const JinjaValue& left, const JinjaValue& right, const JinjaPlace& place) {
  if (left.integer() && right.integer()) return *left.integer() < *right.integer();
  if (left.string() == nullptr || right.string() == nullptr) {
    place.fail("these values have no order", concat(left.type_name(), " and ", right.type_name()));
  }
  return *left.string() < *right.string();  // the order of UTF-8 is that of code points
}

bool compare(const std::string& name, const JinjaValue& left, const JinjaValue& right,
             const JinjaPlace& place) {
  if (name == "==") return left == right;
  if (name == "!=") return !(left == right);
  if (name == "in") return contains(right, left, place);
  if (name == "not in") return !contains(right, left, place);
  if (name == "<") return is_less(left, right, place);
  if (name == ">") return is_less(right, left, place);
  return name == "<=" ? !is_less(right, left, place) : !is_less(left, right, place);
}

// The variable `loop` for one iteration.
JinjaValue make_loop(const List& items, std::size_t index) {
  const auto at = static_cast<std::int64_t>(index);
  const auto size = static_cast<std::int64_t>(items.size());
  JinjaValue::Entries entries = {{"index", at + 1},
                                 {"index0", at},
                                 {"revindex", size - at},
                                 {"revindex0", size - at - 1},
                                 {"first", at == 0},
                                 {"last", at + 1 == size},
                                 {"length", size},
                                 {"previtem", at > 0 ? items[index - 1] : JinjaValue()},
                                 {"nextitem", at + 1 < size ? items[index + 1] : JinjaValue()}};
  return JinjaValue::Dict{.entries = std::move(entries)};
}

}  // namespace

JinjaEvaluator::JinjaEvaluator(Variables variables, const std::string& where,
                               std::optional<std::tm> clock)
    : where_(where), clock_(clock) {
  if (clock_) variables.emplace(kClockFunction, JinjaValue::Dict{});  // so that it is defined
  scopes_.push_back(std::move(variables));
}

std::string JinjaEvaluator::run(const JinjaBody& body) {
  run_body(body);
  return std::move(output_);
}

void JinjaEvaluator::count_steps(std::size_t count, int line) {
  steps_ += count;
  if (steps_ > kMaxSteps) {
    place_of(line).fail("chat template takes too long", concat("over ", kMaxSteps, " steps"));
  }
}

JinjaValue JinjaEvaluator::look_up(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find(name);
    if (found != scope->end()) return found->second;
  }
  return JinjaValue::Undefined{name};
}

void JinjaEvaluator::run_body(const JinjaBody& body) {
  for (const JinjaStatement& statement : body) {
    count_steps(1, statement.line);
    switch (statement.kind) {
      case JinjaStatement::Kind::kText:
        output_ += statement.text;
        break;
      case JinjaStatement::Kind::kOutput:
        output_ += jinja_text(evaluate(*statement.expression), place_of(statement.line));
        break;
      case JinjaStatement::Kind::kIf:
        run_body(evaluate(*statement.expression).is_true() ? statement.body : statement.otherwise);
        break;
      case JinjaStatement::Kind::kFor:
        run_for(statement);
        break;
      case JinjaStatement::Kind::kSet:
        run_set(statement);
        break;
    }
    if (output_.size() > kMaxJinjaText) {
      place_of(statement.line).fail("prompt is too long", concat(output_.size(), " bytes"));
    }
  }
}

void JinjaEvaluator::run_for(const JinjaStatement& statement) {
  const JinjaValue value = evaluate(*statement.expression);
  const auto items = value.items();
  if (!items) place_of(statement.line).fail("for can't run over this value", value.type_name());
  for (std::size_t i = 0; i < items->size(); ++i) {
    count_steps(1, statement.line);
    scopes_.push_back({{statement.name, (*items)[i]}, {"loop", make_loop(*items, i)}});
    run_body(statement.body);
    scopes_.pop_back();
  }
  if (items->empty()) run_body(statement.otherwise);
}

void JinjaEvaluator::run_set(const JinjaStatement& statement) {
  JinjaValue value = evaluate(*statement.expression);
  if (statement.attribute.empty()) {
    scopes_.back()[statement.name] = std::move(value);
    return;
  }
  const JinjaPlace place = place_of(statement.line);
  const JinjaValue object = look_up(statement.name);
  if (object.dict() == nullptr || !object.dict()->is_namespace) {
    place.fail("set of an attribute wants a namespace", object.type_name());
  }
  // Only plain values, so that a namespace can't come to hold itself.
  if (value.list() != nullptr || value.dict() != nullptr) {
    place.fail("a namespace can't hold this value", value.type_name());
  }
  auto& entries = object.dict()->entries;
  if (JinjaValue* found = find_entry(*object.dict(), statement.attribute)) {
    *found = std::move(value);
  } else {
    entries.emplace_back(statement.attribute, std::move(value));
  }
}

JinjaValue JinjaEvaluator::evaluate(const Expression& expression) {
  JinjaValue value = compute(expression);
  std::size_t size = 0;
  if (value.string() != nullptr) size = value.string()->size() / 64;
  if (value.list() != nullptr) size = value.list()->size();
  count_steps(1 + size, expression.line);
  return value;
}

JinjaValue JinjaEvaluator::compute(const Expression& expression) {
  const auto& operands = expression.operands;
  switch (expression.kind) {
    case Kind::kLiteral:
      return expression.value;
    case Kind::kName:
      return look_up(expression.name);
    case Kind::kList:
      return evaluate_list(expression);
    case Kind::kDict:
      return evaluate_dict(expression);
    case Kind::kItem:
    case Kind::kAttribute:
      return evaluate_item(expression);
    case Kind::kSlice:
      return evaluate_slice(expression);
    case Kind::kCall:
      return evaluate_call(expression);
    case Kind::kFilter:
      return apply_jinja_filter(expression.name, evaluate(*operands[0]),
                                evaluate_arguments(expression), place_of(expression.line));
    case Kind::kTest:
      return apply_jinja_test(expression.name, evaluate(*operands[0]), place_of(expression.line));
    case Kind::kUnary:
      return evaluate_unary(expression);
    case Kind::kBinary:
      return evaluate_binary(expression);
    case Kind::kCompare:
      return evaluate_compare(expression);
    case Kind::kCondition:
      if (evaluate(*operands[0]).is_true()) return evaluate(*operands[1]);
      return operands[2] ? evaluate(*operands[2]) : JinjaValue();
  }
  return {};
}

JinjaValue JinjaEvaluator::evaluate_list(const Expression& expression) {
  List items;
  for (const auto& operand : expression.operands) items.push_back(evaluate(*operand));
  return items;
}

JinjaValue JinjaEvaluator::evaluate_dict(const Expression& expression) {
  JinjaValue::Dict dict;
  for (const JinjaArgument& entry : expression.arguments) {
    JinjaValue value = evaluate(*entry.value);
    if (JinjaValue* found = find_entry(dict, entry.name)) {
      *found = std::move(value);
    } else {
      dict.entries.emplace_back(entry.name, std::move(value));
    }
  }
  return dict;
}

JinjaValue JinjaEvaluator::evaluate_item(const Expression& expression) {
  const JinjaValue object = evaluate(*expression.operands[0]);
  const JinjaValue key = expression.kind == Kind::kAttribute ? JinjaValue(expression.name)
                                                             : evaluate(*expression.operands[1]);
  if (object.is_undefined()) {
    place_of(expression.line)
        .fail("value is undefined", concat(quoted(object.undefined_name()), ", of which ",
                                           quoted(key.to_text().value_or("")), " is asked"));
  }
  return object.at(key);
}

JinjaValue JinjaEvaluator::evaluate_slice(const Expression& expression) {
  const JinjaPlace place = place_of(expression.line);
  const JinjaValue object = evaluate(*expression.operands[0]);
  const auto length = object.length();
  if (!length || object.dict() != nullptr) {
    place.fail("slice wants a list or a string", object.type_name());
  }
  const auto number = [&](const JinjaExpressionPtr& operand, std::int64_t missing) {
    if (!operand) return missing;
    const JinjaValue value = evaluate(*operand);
    const auto index = value.integer();
    if (!index) place.fail("slice wants integers", value.type_name());
    return *index;
  };
  const std::int64_t step = number(expression.operands[3], 1);
  if (step == 0) place.fail("slice with a step of zero", "0");
  // Backwards, the places go from the last to before the first, -1.
  const std::int64_t first = step > 0 ? 0 : *length - 1, last = step > 0 ? *length : -1;
  const auto bound = [&](const JinjaExpressionPtr& operand, std::int64_t missing) {
    if (!operand) return missing;
    const std::int64_t index = number(operand, 0);
    return std::clamp<std::int64_t>(index < 0 ? index + *length : index, std::min(first, last),
                                    std::max(first, last));
  };
  const std::int64_t begin = bound(expression.operands[1], first);
  const std::int64_t end = bound(expression.operands[2], last);
  const List items = *object.items();
  List part;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    part.push_back(items[static_cast<std::size_t>(i)]);
    const std::int64_t left = step > 0 ? end - i : i - end;
    if (std::abs(static_cast<double>(step)) >= static_cast<double>(left)) break;
    i += step;
  }
  if (object.string() == nullptr) return part;
  std::string text;
  for (const JinjaValue& character : part) text += *character.string();
  return text;
}

JinjaArguments JinjaEvaluator::evaluate_arguments(const Expression& call) {
  JinjaArguments arguments;
  for (const JinjaArgument& argument : call.arguments) {
    JinjaValue value = evaluate(*argument.value);
    if (argument.name.empty()) {
      arguments.positional.push_back(std::move(value));
    } else {
      arguments.named.emplace_back(argument.name, std::move(value));
    }
  }
  return arguments;
}

JinjaValue JinjaEvaluator::evaluate_call(const Expression& expression) {
  const Expression& callee = *expression.operands[0];
  const JinjaPlace place = place_of(expression.line);
  if (callee.kind == Kind::kName) {
    return call_function(callee.name, evaluate_arguments(expression), place);
  }
  if (callee.kind != Kind::kAttribute) place.fail("call is not supported", "an expression");
  const JinjaValue object = evaluate(*callee.operands[0]);
  return call_jinja_method(callee.name, object, evaluate_arguments(expression), place);
}

JinjaValue JinjaEvaluator::call_function(const std::string& name, const JinjaArguments& arguments,
                                         const JinjaPlace& place) const {
  if (name == "raise_exception") {
    const JinjaValue message = arguments.positional.empty() ? "" : arguments.positional[0];
    place.fail("chat template refuses the conversation", jinja_text(message, place));
  }
  if (name == kClockFunction && clock_ && arguments.positional.size() == 1 &&
      arguments.named.empty()) {
    return format_time(jinja_text(arguments.positional[0], place), *clock_, place);
  }
  if (name == "namespace" && arguments.positional.empty()) {
    JinjaValue::Dict space{.entries = arguments.named, .is_namespace = true};
    return space;
  }
  place.fail("function is not supported", quoted(name));
}

JinjaValue JinjaEvaluator::evaluate_unary(const Expression& expression) {
  const JinjaValue value = evaluate(*expression.operands[0]);
  if (expression.name == "not") return !value.is_true();
  const auto number = value.integer();
  const JinjaPlace place = place_of(expression.line);
  if (!number) place.fail(concat(quoted(expression.name), " wants an integer"), value.type_name());
  return expression.name == "-" ? calculate("-", 0, *number, place) : JinjaValue(*number);
}

JinjaValue JinjaEvaluator::evaluate_binary(const Expression& expression) {
  const JinjaPlace place = place_of(expression.line);
  const std::string& name = expression.name;
  const JinjaValue left = evaluate(*expression.operands[0]);
  if (name == "and") return left.is_true() ? evaluate(*expression.operands[1]) : left;
  if (name == "or") return left.is_true() ? left : evaluate(*expression.operands[1]);
  const JinjaValue right = evaluate(*expression.operands[1]);
  if (name == "~") {
    return bounded_jinja_text(jinja_text(left, place) + jinja_text(right, place), place);
  }
  if (left.integer() && right.integer()) {
    return calculate(name, *left.integer(), *right.integer(), place);
  }
  if (name == "+") return add(left, right, place);
  place.fail(concat(quoted(name), " wants integers"),
             concat(left.type_name(), " and ", right.type_name()));
}

JinjaValue JinjaEvaluator::add(const JinjaValue& left, const JinjaValue& right,
                               const JinjaPlace& place) const {
  if (left.string() != nullptr && right.string() != nullptr) {
    return bounded_jinja_text(*left.string() + *right.string(), place);
  }
  if (left.list() != nullptr && right.list() != nullptr) {
    List items = *left.list();
    items.insert(items.end(), right.list()->begin(), right.list()->end());
    if (items.size() > kMaxJinjaItems) place.fail("list is too long", concat(items.size()));
    return items;
  }
  place.fail("\"+\" wants two integers, strings or lists",
             concat(left.type_name(), " and ", right.type_name()));
}

JinjaValue JinjaEvaluator::evaluate_compare(const Expression& expression) {
  JinjaValue left = evaluate(*expression.operands[0]);
  for (std::size_t i = 0; i < expression.names.size(); ++i) {
    JinjaValue right = evaluate(*expression.operands[i + 1]);
    if (!compare(expression.names[i], left, right, place_of(expression.line))) return false;
    left = std::move(right);
  }
  return true;
}

}  // namespace vlm
