// What an answer must look like, compiled for one tokenizer. GenerationOptions hold one; a search
// starts a matcher of it for each answer.
//
//   AnswerRule (a schema, a pattern, a grammar) ─► RuleCompiler (rule_compiler.h) ─► AnswerGrammar
//
// An answer that ends with "stop" follows the rule, unless a stop string cut it. One that was cut
// ("length") is the beginning of such an answer. Immutable.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "infer/structured/answer_matcher.h"
#include "infer/structured/answer_rule.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// The bytes of each id's token; empty for those that never may come.
using VocabularyBytes = std::vector<std::string>;

class AnswerGrammar {
 public:
  AnswerGrammar(AnswerRule rule, std::shared_ptr<const TokenGrammar> tokens,
                std::shared_ptr<const VocabularyBytes> vocabulary)
      : rule_(std::move(rule)), tokens_(std::move(tokens)), vocabulary_(std::move(vocabulary)) {}

  const AnswerRule& rule() const { return rule_; }
  std::unique_ptr<AnswerMatcher> start() const { return tokens_->start(); }
  std::int64_t vocab_size() const { return tokens_->vocab_size(); }
  const VocabularyBytes& vocabulary() const { return *vocabulary_; }
  std::size_t bytes() const { return tokens_->bytes(); }

 private:
  AnswerRule rule_;
  std::shared_ptr<const TokenGrammar> tokens_;
  std::shared_ptr<const VocabularyBytes> vocabulary_;
};

}  // namespace vlm::infer
