// The members of a JSON object, in a schema and in its grammar (schema_grammar.h).
//
// Named properties come in the schema's order. Others come behind them, where the schema says what
// they are: additionalProperties, or one of patternProperties.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "infer/structured/grammar/grammar_rules.h"
#include "vlm/core/json.h"

namespace vlm::infer {

struct ObjectMember {
  std::string name;
  const OrderedJson* schema = nullptr;
  bool is_required = false;
  std::string grammar = {};  // of the whole member
};

struct ObjectParts {
  std::vector<ObjectMember> members;
  const OrderedJson* rest = nullptr;  // of the values of other properties; null: there are none
  std::optional<std::string> key_pattern;  // of the names of others
  const OrderedJson* names = nullptr;      // a schema of the names of others; null: any
  std::int64_t least = 0, most = -1;       // members in all; -1: no bound
  std::string rest_grammar = {};           // as a member's
};

// The schema must outlive the parts. Throws Error naming `where` for what can't be kept.
ObjectParts read_object(const OrderedJson& schema, const std::string& where);

// Members with commas between them and space behind them, or nothing. Throws Error where no object
// has so few or so many.
std::string write_members(const ObjectParts& parts, GrammarRules& rules, const std::string& where);

// Names in quotes that are none of the members'.
std::string other_keys(const ObjectParts& parts, GrammarRules& rules);

}  // namespace vlm::infer
