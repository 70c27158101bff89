// Expressions of a chat template: tokens → a tree.
//
// Supported, loosest binding first: x if y else z; or, and, not; comparisons, in; + and -; ~; *, //
// and %; signs; literals, lists, dicts, indexing, slices, attributes, calls, filters and tests.
// Floats, "/", "**" and tests with arguments are an Error with file and line. Which filters, tests,
// methods and functions exist is known to jinja_evaluator.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "vlm/text/jinja/jinja_cursor.h"
#include "vlm/text/jinja/jinja_value.h"

namespace vlm {

struct JinjaExpression;
using JinjaExpressionPtr = std::unique_ptr<JinjaExpression>;

struct JinjaArgument {
  std::string name;  // empty: by position
  JinjaExpressionPtr value;
};

struct JinjaExpression {
  enum class Kind {
    kLiteral,    // value
    kName,       // name
    kList,       // operands
    kDict,       // arguments: key text → value
    kItem,       // operands: object, key
    kSlice,      // operands: object, begin, end and step, each may be null
    kAttribute,  // operands: object; name
    kCall,       // operands: callee; arguments
    kFilter,     // operands: value; name, arguments
    kTest,       // operands: value; name
    kUnary,      // name "-", "+" or "not"
    kBinary,     // name: the operator, "and" and "or" too
    kCompare,    // a < b < c: operands, and the operators in names
    kCondition,  // operands: test, then, else or null
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  std::string name = {};
  JinjaValue value = {};
  std::vector<JinjaExpressionPtr> operands = {};
  std::vector<JinjaArgument> arguments = {};
  std::vector<std::string> names = {};
  int depth = 1;  // of this tree: bounded, because walking it is recursive
};

// The expression at the cursor; "a, b" is a list. Throws Error.
JinjaExpressionPtr parse_jinja_expression(JinjaCursor& cursor);

// As above, but ends before "if" and ",": what a loop runs over.
JinjaExpressionPtr parse_jinja_iterable(JinjaCursor& cursor);

}  // namespace vlm
