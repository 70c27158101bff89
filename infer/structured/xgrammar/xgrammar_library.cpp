// The shared object vlm_xgrammar: grammars compiled and matched by XGrammar 0.2.9.
//
// XGrammar calls back for its messages (XGRAMMAR_LOG_CUSTOMIZE): a fatal one is an exception with
// its text alone, and a warning means that the grammar isn't kept exactly, so that it is one too.
#include <dlpack/dlpack.h>
#include <xgrammar/compiler.h>
#include <xgrammar/matcher.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "infer/structured/xgrammar/grammar_library.h"

namespace xgrammar {

// Names and signatures are XGrammar's.
[[noreturn]] void LogFatalImpl(const std::string&, int, const std::string& message) {
  throw std::runtime_error(message);
}

void LogMessageImpl(const std::string&, int, int level, const std::string& message) {
  constexpr int kWarning = 2;
  if (level >= kWarning) throw std::runtime_error(message);
}

}  // namespace xgrammar

namespace vlm::infer {
namespace {

constexpr int kThreads = 2;  // of a compilation: it may run beside a model

class XgrammarMatcher : public AnswerMatcher {
 public:
  explicit XgrammarMatcher(xgrammar::GrammarMatcher matcher) : matcher_(std::move(matcher)) {}

  void find_allowed(std::span<std::uint32_t> allowed) override {
    std::ranges::fill(allowed, 0);
    auto words = static_cast<std::int64_t>(allowed.size());
    DLTensor mask{.data = allowed.data(),
                  .device = {kDLCPU, 0},
                  .ndim = 1,
                  .dtype = xgrammar::GetBitmaskDLType(),
                  .shape = &words,
                  .strides = nullptr,
                  .byte_offset = 0};
    if (!matcher_.FillNextTokenBitmask(&mask)) std::ranges::fill(allowed, ~std::uint32_t{0});
  }

  bool accept(std::int64_t id) override { return matcher_.AcceptToken(static_cast<int>(id)); }
  bool accept_text(std::string_view text) override {
    return matcher_.AcceptString(std::string(text));
  }
  bool is_complete() const override { return matcher_.IsCompleted(); }
  std::unique_ptr<AnswerMatcher> fork() const override {
    return std::make_unique<XgrammarMatcher>(matcher_.Fork());
  }

 private:
  xgrammar::GrammarMatcher matcher_;
};

class XgrammarGrammar : public TokenGrammar {
 public:
  XgrammarGrammar(xgrammar::CompiledGrammar grammar, std::int64_t vocab_size)
      : grammar_(std::move(grammar)), vocab_size_(vocab_size) {}

  std::unique_ptr<AnswerMatcher> start() const override {
    return std::make_unique<XgrammarMatcher>(xgrammar::GrammarMatcher(grammar_));
  }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::size_t bytes() const override { return grammar_.MemorySizeBytes(); }

 private:
  xgrammar::CompiledGrammar grammar_;
  std::int64_t vocab_size_;
};

class XgrammarBuilder : public GrammarBuilder {
 public:
  explicit XgrammarBuilder(const std::vector<std::string>& vocabulary)
      : vocab_size_(static_cast<std::int64_t>(vocabulary.size())),
        // No stop tokens: else it would look for some among the texts of the vocabulary.
        tokens_(vocabulary, xgrammar::VocabType::RAW, std::nullopt, std::vector<std::int32_t>()),
        compiler_(tokens_, kThreads, /*cache_enabled=*/false) {}

  std::shared_ptr<const TokenGrammar> compile(const std::string& grammar) const override {
    xgrammar::GrammarCompiler compiler = compiler_;
    return std::make_shared<XgrammarGrammar>(compiler.CompileGrammar(grammar), vocab_size_);
  }

 private:
  std::int64_t vocab_size_;
  xgrammar::TokenizerInfo tokens_;
  xgrammar::GrammarCompiler compiler_;
};

std::unique_ptr<GrammarBuilder> open_builder(const std::vector<std::string>& vocabulary) {
  return std::make_unique<XgrammarBuilder>(vocabulary);
}

}  // namespace
}  // namespace vlm::infer

extern "C" const vlm::infer::GrammarLibrary* vlm_grammar_library() {
  static const vlm::infer::GrammarLibrary library{.open = vlm::infer::open_builder};
  return &library;
}
