#include "infer/search/forced_begin.h"

#include <algorithm>
#include <cstdint>
#include <memory>

#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kWordBits = 32;

// Null where the grammar doesn't allow the text.
std::unique_ptr<AnswerMatcher> start_behind(const AnswerGrammar& grammar, const std::string& text) {
  std::unique_ptr<AnswerMatcher> matcher = grammar.start();
  return text.empty() || matcher->accept_text(text) ? std::move(matcher) : nullptr;
}

// Whether a token that begins with `rest`, and goes on, may come behind `kept`.
bool can_be_spanned(const AnswerGrammar& grammar, const std::string& kept,
                    const std::string& rest) {
  std::vector<std::size_t> longer;
  const VocabularyBytes& vocabulary = grammar.vocabulary();
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary[id].size() > rest.size() && vocabulary[id].starts_with(rest)) {
      longer.push_back(id);
    }
  }
  if (longer.empty()) return false;
  const auto matcher = start_behind(grammar, kept);
  if (!matcher) return false;
  std::vector<std::uint32_t> allowed((vocabulary.size() + kWordBits - 1) / kWordBits);
  matcher->find_allowed(allowed);
  return std::ranges::any_of(longer, [&](std::size_t id) {
    return (allowed[id / kWordBits] >> (id % kWordBits) & 1U) != 0;
  });
}

}  // namespace

ForcedBegin find_forced_begin(const AnswerGrammar& grammar, const std::string& text,
                              std::span<const std::string> tokens) {
  if (!start_behind(grammar, text)) {
    throw Error({.what = "no answer of the asked form begins so",
                 .got = text.substr(0, 100),
                 .hint = "the form holds for the whole answer, its given beginning included"});
  }
  ForcedBegin begin{.kept_tokens = tokens.size(), .kept = text};
  std::string joined;
  for (const std::string& token : tokens) joined += token;
  if (!joined.ends_with(text)) return begin;  // the tokenizer has written it in another way
  const std::size_t in_front = joined.size() - text.size();  // of the template
  std::size_t longest = 0;
  for (const std::string& token : grammar.vocabulary()) longest = std::max(longest, token.size());
  std::size_t at = joined.size();
  for (std::size_t count = tokens.size(); count > 0; --count) {
    at -= tokens[count - 1].size();
    const bool is_templates = at < in_front;
    if (is_templates || joined.size() - at >= longest) break;
    const std::string kept = text.substr(0, at - in_front), rest = text.substr(at - in_front);
    if (can_be_spanned(grammar, kept, rest)) begin = {count - 1, kept, rest};
  }
  return begin;
}

}  // namespace vlm::infer
