// Tokens of a chat template → statements.
//
// Supported: text, {{ output }}, if/elif/else, for … else, set (names and attributes of namespaces)
// and transformers' generation. The rest of Jinja (macro, include, block, call, filter blocks,
// unpacking, set blocks, …) is an Error with file and line.
#pragma once

#include <string>
#include <vector>

#include "vlm/text/jinja/jinja_expression.h"

namespace vlm {

struct JinjaStatement;
using JinjaBody = std::vector<JinjaStatement>;

struct JinjaStatement {
  enum class Kind {
    kText,    // text
    kOutput,  // expression
    kIf,      // expression, body, otherwise
    kFor,     // name in expression: body; otherwise where there is nothing
    kSet,     // name, or name.attribute, = expression
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text = {};
  std::string name = {};
  std::string attribute = {};
  JinjaExpressionPtr expression = {};
  JinjaBody body = {};
  JinjaBody otherwise = {};
};

// Throws Error naming `where`, the line and the construct.
JinjaBody parse_jinja(const std::string& source, const std::string& where);

}  // namespace vlm
