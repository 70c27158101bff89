#include "infer/search/grammar_guide.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>

#include "infer/structured/answer_grammar.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kBits = 32;

bool has_bit(const std::vector<std::uint32_t>& words, std::int64_t id) {
  return (words[static_cast<std::size_t>(id / kBits)] >> (id % kBits) & 1U) != 0;
}

}  // namespace

GrammarGuide::GrammarGuide(const GenerationOptions& options) : end_ids_(options.eos_token_ids) {
  if (!options.grammar) return;
  grammar_ = options.grammar;
  forced_ = options.forced_begin;
  matcher_ = grammar_->start();
  TORCH_CHECK(options.grammar_begin.empty() || matcher_->accept_text(options.grammar_begin),
              "the grammar doesn't allow the answer's beginning");
  allowed_.resize(static_cast<std::size_t>((options.grammar->vocab_size() + kBits - 1) / kBits));
}

GrammarGuide::GrammarGuide(const GrammarGuide& other)
    : grammar_(other.grammar_),
      matcher_(other.matcher_ ? other.matcher_->fork() : nullptr),
      forced_(other.forced_),
      end_ids_(other.end_ids_),
      allowed_(other.allowed_) {}

GrammarGuide& GrammarGuide::operator=(const GrammarGuide& other) {
  *this = GrammarGuide(other);
  return *this;
}

bool GrammarGuide::mask(float* row, std::int64_t vocab) {
  if (!matcher_) return true;
  matcher_->find_allowed(allowed_);
  for (const std::int64_t id : end_ids_) {
    if (id < 0 || id / kBits >= std::ssize(allowed_)) continue;
    std::uint32_t& word = allowed_[static_cast<std::size_t>(id / kBits)];
    const std::uint32_t bit = 1U << (id % kBits);
    word = matcher_->is_complete() && forced_.empty() ? word | bit : word & ~bit;
  }
  if (!forced_.empty()) keep_spelling();
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const std::int64_t known = std::min(vocab, std::ssize(allowed_) * kBits);
  bool is_any = false;
  for (std::int64_t begin = 0; begin < known; begin += kBits) {
    const std::uint32_t word = allowed_[static_cast<std::size_t>(begin / kBits)];
    is_any = is_any || word != 0;
    if (word == ~std::uint32_t{0}) continue;
    const std::int64_t end = std::min(begin + kBits, known);
    if (word == 0) {
      std::fill(row + begin, row + end, kNever);
      continue;
    }
    for (std::int64_t id = begin; id < end; ++id) {
      if (!has_bit(allowed_, id)) row[id] = kNever;
    }
  }
  std::fill(row + known, row + vocab, kNever);
  return is_any;
}

// Only tokens that spell the next of the forced bytes, or all of them and more.
void GrammarGuide::keep_spelling() {
  const VocabularyBytes& vocabulary = grammar_->vocabulary();
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& token = vocabulary[id];
    const std::size_t common = std::min(token.size(), forced_.size());
    const bool spells = common > 0 && token.compare(0, common, forced_, 0, common) == 0;
    if (!spells) allowed_[id / kBits] &= ~(1U << (id % kBits));
  }
}

bool GrammarGuide::accept(std::int64_t id) {
  if (!matcher_ || std::ranges::find(end_ids_, id) != end_ids_.end()) return true;
  if (!matcher_->accept(id)) return false;
  if (forced_.empty()) return true;
  const std::size_t bytes = grammar_->vocabulary()[static_cast<std::size_t>(id)].size();
  forced_.erase(0, std::min(bytes, forced_.size()));
  return true;
}

}  // namespace vlm::infer
