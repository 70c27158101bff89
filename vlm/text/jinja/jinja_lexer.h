// Jinja source → tokens, with white space cut as transformers sets Jinja up (trim_blocks and
// lstrip_blocks on, one newline at the very end dropped).
//
// Reference: the lexer of jinja2 3.1. Raw blocks, floating point numbers and rare string escapes
// are an Error with file and line.
#pragma once

#include <string>
#include <vector>

namespace vlm {

struct JinjaToken {
  enum class Kind {
    kText,  // what stands between tags
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,  // text is the value, escapes resolved
    kInteger,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text = {};
  int line = 0;
};

// The tokens of a template, with kEnd behind them. `where` names the file in errors.
std::vector<JinjaToken> tokenize_jinja(const std::string& source, const std::string& where);

}  // namespace vlm
