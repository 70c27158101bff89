// What an answer must look like, as a user or a client says it.
//
//   --json-schema, --json-object, --regex, --grammar     ─┐
//   "response_format" of OpenAI's requests                ├─► AnswerRule
//   "structured_outputs" of vLLM's (json, regex, …)      ─┘
//
// Reading checks the shape of the request; whether a schema, pattern or grammar can be kept is
// told by rule_compiler.h.
#pragma once

#include <optional>
#include <string>

#include "vlm/core/json.h"

namespace vlm::infer {

struct AnswerRule {
  enum class Kind { kJsonSchema, kJsonObject, kRegex, kGrammar };

  Kind kind = Kind::kJsonObject;
  std::string text = {};  // the schema as JSON, the pattern, or the grammar

  bool is_json() const { return kind == Kind::kJsonSchema || kind == Kind::kJsonObject; }
  bool operator==(const AnswerRule&) const = default;
};

// {"type": "text"}: nothing. {"type": "json_object"}. {"type": "json_schema", "json_schema":
// {"schema", "name"?, "strict"?, "description"?}}, also with the schema beside the type. Throws
// Error naming `where` and the key.
std::optional<AnswerRule> read_response_format(const OrderedJson& value, const std::string& where);

// Exactly one of {"json": schema}, {"json_object": true}, {"regex"} and {"grammar"}. Throws Error
// as above. ("choice" is no rule: given answers are scored.)
AnswerRule read_structured_outputs(const OrderedJson& value, const std::string& where);

// The names of these two members, as rows, questions and requests have them.
inline constexpr const char* kRuleNames[] = {"response_format", "structured_outputs"};
bool is_rule_name(const std::string& name);

// The value of the member of this name; it may also be JSON in a string, as columns of tables hold
// it. Throws Error as above.
std::optional<AnswerRule> read_rule(const std::string& name, const OrderedJson& value,
                                    const std::string& where);

// The same rule as the value of a response_format or structured_outputs, for journals.
OrderedJson describe_rule(const AnswerRule& rule);

}  // namespace vlm::infer
