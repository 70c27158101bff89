#include "infer/structured/rule_compiler.h"

#include <list>
#include <mutex>
#include <vector>

#include "infer/structured/rule_grammar.h"
#include "infer/structured/xgrammar/grammar_library.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/plugin.h"

namespace vlm::infer {
namespace {

VocabularyBytes read_vocabulary(const Tokenizer& tokenizer) {
  VocabularyBytes vocabulary;
  for (std::int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    vocabulary.push_back(tokenizer.token_bytes(id));
  }
  return vocabulary;
}

std::unique_ptr<GrammarBuilder> open_builder(const VocabularyBytes& vocabulary) {
  using Function = const GrammarLibrary* (*)();
  static const GrammarLibrary* library = reinterpret_cast<Function>(
      open_plugin("vlm_xgrammar", "vlm_grammar_library", "Answers can't be kept to a rule"))();
  return library->open(vocabulary);
}

}  // namespace

struct RuleCompiler::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::size_t most_cached;
  std::mutex mutex = {};  // guards what follows
  std::shared_ptr<const VocabularyBytes> vocabulary = {};
  std::unique_ptr<GrammarBuilder> builder = {};
  std::list<std::shared_ptr<const AnswerGrammar>> cached = {};  // the last used first
  std::size_t cached_bytes = 0;

  std::shared_ptr<const AnswerGrammar> find(const AnswerRule& rule) {
    for (auto one = cached.begin(); one != cached.end(); ++one) {
      if ((*one)->rule() != rule) continue;
      cached.splice(cached.begin(), cached, one);
      return cached.front();
    }
    return nullptr;
  }

  void keep(std::shared_ptr<const AnswerGrammar> grammar) {
    cached_bytes += grammar->bytes();
    cached.push_front(std::move(grammar));
    while (cached_bytes > most_cached && cached.size() > 1) {
      cached_bytes -= cached.back()->bytes();
      cached.pop_back();
    }
  }
};

RuleCompiler::RuleCompiler(std::shared_ptr<const Tokenizer> tokenizer, std::size_t most_cached)
    : state_(new State{std::move(tokenizer), most_cached}) {}
RuleCompiler::~RuleCompiler() = default;
RuleCompiler::RuleCompiler(RuleCompiler&&) noexcept = default;

std::shared_ptr<const AnswerGrammar> RuleCompiler::compile(const AnswerRule& rule,
                                                           const std::string& where) {
  const std::lock_guard lock(state_->mutex);
  if (auto grammar = state_->find(rule)) return grammar;
  const std::string text = to_grammar(rule, where);
  if (!state_->builder) {
    state_->vocabulary =
        std::make_shared<const VocabularyBytes>(read_vocabulary(*state_->tokenizer));
    state_->builder = open_builder(*state_->vocabulary);
  }
  std::shared_ptr<const TokenGrammar> tokens;
  try {
    tokens = state_->builder->compile(text);
  } catch (const std::exception& error) {
    throw Error({.what = "the rule can't be compiled", .where = where, .got = error.what()});
  }
  auto grammar = std::make_shared<const AnswerGrammar>(rule, std::move(tokens), state_->vocabulary);
  state_->keep(grammar);
  return grammar;
}

std::size_t RuleCompiler::cached_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->cached_bytes;
}

}  // namespace vlm::infer
