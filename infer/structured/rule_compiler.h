// Rules → grammars for one tokenizer, made once each.
//
//   AnswerRule ─► (guard: what can't be kept exactly is refused) ─► EBNF ─► vlm_xgrammar ─►
//   AnswerGrammar
//
// The vocabulary is prepared with the first rule. Thread-safe: several threads compile one after
// the other, so call it where waiting for tens of milliseconds is no harm, and not in the loop that
// serves others. What a rule may cost is bounded before it is compiled.
#pragma once

#include <cstddef>
#include <memory>

#include "infer/structured/answer_grammar.h"
#include "vlm/text/tokenizer.h"

namespace vlm::infer {

class RuleCompiler {
 public:
  // Grammars kept for being asked for again, at most.
  static constexpr std::size_t kMostCachedBytes = 64 << 20;

  explicit RuleCompiler(std::shared_ptr<const Tokenizer> tokenizer,
                        std::size_t most_cached = kMostCachedBytes);
  // The same for a tokenizer that outlives this.
  explicit RuleCompiler(const Tokenizer& tokenizer)
      : RuleCompiler(std::shared_ptr<const Tokenizer>(std::shared_ptr<void>(), &tokenizer)) {}
  ~RuleCompiler();
  RuleCompiler(RuleCompiler&&) noexcept;

  // Throws Error naming `where`, and of a schema the JSON pointer and the keyword, for what can't
  // be kept or costs too much, and when the build is without vlm_xgrammar.
  std::shared_ptr<const AnswerGrammar> compile(const AnswerRule& rule, const std::string& where);

  std::size_t cached_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vlm::infer
