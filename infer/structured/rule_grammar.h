// A rule → the EBNF that XGrammar compiles.
#pragma once

#include <string>

#include "infer/structured/answer_rule.h"

namespace vlm::infer {

// Of a schema as schema_grammar.h says, of a pattern as pattern_grammar.h (for the whole answer).
// A grammar is taken as it is, if its size, counts and brackets are within bounds. Throws Error
// naming `where`.
std::string to_grammar(const AnswerRule& rule, const std::string& where);

}  // namespace vlm::infer
