// Which tokens may come next in an answer that has to follow a grammar.
//
//   TokenGrammar (compiled, shared) ─► start ─► AnswerMatcher: find_allowed, accept, …, is_complete
//
// The interface between a search and the shared object vlm_xgrammar (grammar_library.h). Ids are
// those of the tokenizer; end tokens are the search's business: they are never among the allowed
// ones, and belong there when is_complete(). Errors are std::runtime_error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace vlm::infer {

// The state of one answer. Not thread-safe.
class AnswerMatcher {
 public:
  virtual ~AnswerMatcher() = default;

  // Sets a bit for each id that may come next: bit i % 32 of word i / 32. `allowed` has room for
  // the whole vocabulary.
  virtual void find_allowed(std::span<std::uint32_t> allowed) = 0;
  // Takes an allowed id; false for any other, which changes nothing.
  virtual bool accept(std::int64_t id) = 0;
  // Takes a text, whatever its tokens; false where the grammar doesn't allow it. The matcher is
  // then of no use any more.
  virtual bool accept_text(std::string_view text) = 0;
  // Whether the answer may end here.
  virtual bool is_complete() const = 0;
  // Another matcher in the same state: for beams.
  virtual std::unique_ptr<AnswerMatcher> fork() const = 0;
};

// Immutable, and safe to start matchers from several threads.
class TokenGrammar {
 public:
  virtual ~TokenGrammar() = default;

  virtual std::unique_ptr<AnswerMatcher> start() const = 0;
  virtual std::int64_t vocab_size() const = 0;  // ids that have a bit
  virtual std::size_t bytes() const = 0;        // memory, about
};

}  // namespace vlm::infer
