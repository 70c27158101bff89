// A JSON schema → EBNF for the values that satisfy it: the guard in front of XGrammar.
//
//   {"properties": {"n": {"type": "integer"}}, "required": ["n"]} ─►
//   root ::= "{" ws "\"n\"" ":" ws r1 ws "}"
//
// What is written is a part of what the schema allows: objects hold the properties that it names,
// in its order, unless additionalProperties says more; numbers have a bounded length; white space
// between tokens is bounded, and there is none around the value; characters have one spelling.
// Everything written satisfies the schema. Where that can't be had, the schema is refused, naming
// the JSON pointer and the keyword, and so is one that would take too long to compile.
// Reference: JSON Schema 2020-12.
#pragma once

#include <string>

namespace vlm::infer {

struct SchemaLimits {
  std::size_t text_bytes = 64 << 10;
  int depth = 32;
  int nodes = 2000;
  int enum_values = 1000;
  int properties = 400;
  std::size_t grammar_bytes = 256 << 10;
};

// `text` is the schema as JSON. Throws Error naming `where`.
std::string schema_to_grammar(const std::string& text, const std::string& where,
                              const SchemaLimits& limits = {});

// Any JSON object.
std::string json_object_grammar();

}  // namespace vlm::infer
