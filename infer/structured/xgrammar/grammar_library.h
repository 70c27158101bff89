// The interface between the program and the shared object vlm_xgrammar, which compiles grammars for
// a vocabulary with XGrammar. It is opened with the first structured answer, because most runs need
// none and a build may be without it.
//
//   vocabulary ─► open ─► GrammarBuilder ─► compile(EBNF) ─► TokenGrammar
//
// Errors are std::runtime_error without paths: the shared object knows no other part of the
// program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "infer/structured/answer_matcher.h"

namespace vlm::infer {

class GrammarBuilder {
 public:
  virtual ~GrammarBuilder() = default;
  // Of a grammar in XGrammar's EBNF whose first rule is "root". Thread-safe. It can't be
  // interrupted: the caller bounds the grammar.
  virtual std::shared_ptr<const TokenGrammar> compile(const std::string& grammar) const = 0;
};

// What the shared object exports, as the C function `vlm_grammar_library`.
struct GrammarLibrary {
  // The bytes of each id's token; empty for those that never may come.
  std::unique_ptr<GrammarBuilder> (*open)(const std::vector<std::string>& vocabulary);
};

}  // namespace vlm::infer
