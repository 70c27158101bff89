// Runs a parsed chat template: statements and variables → text.
//
// Scopes are Jinja's: what `set` writes inside a loop ends with the iteration, and namespaces are
// the way around it. Work and memory are bounded (steps, length of texts and lists), because a
// template is a stranger's program.
#pragma once

#include <ctime>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "vlm/text/jinja/jinja_functions.h"
#include "vlm/text/jinja/jinja_parser.h"

namespace vlm {

class JinjaEvaluator {
 public:
  using Variables = std::map<std::string, JinjaValue>;

  // `where` names the template's file in errors and outlives the evaluator. With a `clock` the
  // template has the function strftime_now.
  JinjaEvaluator(Variables variables, const std::string& where,
                 std::optional<std::tm> clock = std::nullopt);

  // Throws Error for what can't be done, with the line, and for raise_exception.
  std::string run(const JinjaBody& body);

 private:
  using Expression = JinjaExpression;

  void run_body(const JinjaBody& body);
  void run_for(const JinjaStatement& statement);
  void run_set(const JinjaStatement& statement);

  JinjaValue evaluate(const Expression& expression);  // compute, counted
  JinjaValue compute(const Expression& expression);
  JinjaValue evaluate_list(const Expression& expression);
  JinjaValue evaluate_dict(const Expression& expression);
  JinjaValue evaluate_item(const Expression& expression);
  JinjaValue evaluate_slice(const Expression& expression);
  JinjaValue evaluate_call(const Expression& expression);
  JinjaValue evaluate_unary(const Expression& expression);
  JinjaValue evaluate_binary(const Expression& expression);
  JinjaValue evaluate_compare(const Expression& expression);
  JinjaValue add(const JinjaValue& left, const JinjaValue& right, const JinjaPlace& place) const;
  JinjaValue call_function(const std::string& name, const JinjaArguments& arguments,
                           const JinjaPlace& place) const;
  JinjaArguments evaluate_arguments(const Expression& call);

  JinjaValue look_up(const std::string& name) const;
  JinjaPlace place_of(int line) const { return {where_, line}; }
  void count_steps(std::size_t count, int line);

  const std::string& where_;
  std::optional<std::tm> clock_;
  std::vector<Variables> scopes_;  // outermost first
  std::string output_;
  std::size_t steps_ = 0;
};

}  // namespace vlm
