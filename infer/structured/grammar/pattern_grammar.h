// A regular expression → an expression of EBNF for the texts that match.
//
//   "^[A-Z]{2}\d+$" ─► [A-Z]{2,2} [0-9]+
//
// Read are alternatives, groups, classes, \d \w \s and their opposites, escapes, quantifiers and
// the anchors ^ and $ at the ends of whole alternatives, with the meaning of ECMA-262 in Unicode
// mode. Anything else (lookaround, back references, \b, \p, flags) is an Error that names it, and
// so is what would cost too much: long patterns, large or nested counts.
#pragma once

#include <string>

namespace vlm::infer {

struct PatternUse {
  bool in_json = false;    // the text stands in a JSON string, as its quotes hold it
  bool is_search = false;  // the text may hold more before and behind, where no anchor forbids it
};

// Throws Error naming `where` and the construct.
std::string pattern_to_grammar(const std::string& pattern, const PatternUse& use,
                               const std::string& where);

}  // namespace vlm::infer
