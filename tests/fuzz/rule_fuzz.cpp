// Bytes → a schema, a pattern, a grammar or a request's member → its grammar: Errors, or the same
// text again. The first byte says which is tried.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "infer/structured/answer_value.h"
#include "infer/structured/rule_grammar.h"
#include "vlm/core/error.h"
#include "vlm/core/schema/json_schema.h"

namespace {

using namespace vlm::infer;

void try_rule(const AnswerRule& rule) {
  if (to_grammar(rule, "here") != to_grammar(rule, "here")) std::abort();
  if (rule.kind != AnswerRule::Kind::kJsonSchema) return;
  property_names(rule);
  read_answer(rule, rule.text, "stop");
}

void try_request(const std::string& text) {
  const auto value = vlm::parse_ordered_json(text, "here", vlm::Numbers::kAsWritten);
  for (const char* name : kRuleNames) {
    try {
      if (const auto rule = read_rule(name, value, "here")) try_rule(*rule);
    } catch (const vlm::Error&) {
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        try_rule({.kind = AnswerRule::Kind::kJsonSchema, .text = text});
        break;
      case 1:
        try_rule({.kind = AnswerRule::Kind::kRegex, .text = text});
        break;
      case 2:
        try_rule({.kind = AnswerRule::Kind::kGrammar, .text = text});
        break;
      default:
        try_request(text);
    }
  } catch (const vlm::Error&) {
  }
  return 0;
}
