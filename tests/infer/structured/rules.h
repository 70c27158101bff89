// Rules compiled for a vocabulary of single bytes, and which texts they take.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "infer/structured/rule_compiler.h"
#include "tests/support/catch.h"
#include "tests/support/thrown.h"

namespace vlm::infer {

// Ids 0 to 255 are bytes, 256 is special.
class ByteTokenizer : public Tokenizer {
 public:
  std::vector<std::int64_t> encode(std::string_view text, bool) const override {
    std::vector<std::int64_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::unique_ptr<DecodeStream> start_decoding(bool) const override {
    throw std::logic_error("not needed");
  }
  std::optional<std::int64_t> token_to_id(std::string_view) const override { return std::nullopt; }
  std::optional<std::string> id_to_token(std::int64_t) const override { return std::nullopt; }
  std::string token_bytes(std::int64_t id) const override {
    return id < 256 ? std::string(1, static_cast<char>(id)) : "";
  }
  std::int64_t vocab_size() const override { return 257; }
};

// How a text fares: "whole", "part" (more has to come), or "refused at 3".
inline std::string fate_of(const AnswerGrammar& grammar, const std::string& text) {
  const auto matcher = grammar.start();
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!matcher->accept(static_cast<unsigned char>(text[i]))) {
      return "refused at " + std::to_string(i);
    }
  }
  return matcher->is_complete() ? "whole" : "part";
}

class Rules {
 public:
  std::shared_ptr<const AnswerGrammar> compile(const AnswerRule& rule) {
    return compiler_.compile(rule, "here");
  }
  std::string schema(const std::string& schema, const std::string& text) {
    return fate_of(*compile({.kind = AnswerRule::Kind::kJsonSchema, .text = schema}), text);
  }
  std::string regex(const std::string& pattern, const std::string& text) {
    return fate_of(*compile({.kind = AnswerRule::Kind::kRegex, .text = pattern}), text);
  }
  RuleCompiler& compiler() { return compiler_; }

 private:
  RuleCompiler compiler_{std::make_shared<ByteTokenizer>()};
};

// What compiling the schema says.
inline std::string refusal_of(const std::string& schema) {
  Rules rules;
  return thrown_by([&] { rules.compile({.kind = AnswerRule::Kind::kJsonSchema, .text = schema}); });
}

}  // namespace vlm::infer
