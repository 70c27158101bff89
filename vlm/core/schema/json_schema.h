// A JSON schema, and whether a value satisfies it.
//
//   schema (draft 2020-12) + value ─► find_fault ─► "" or "/size: above the maximum 10"
//
// All keywords of the draft are checked but these, which are an Error: references that leave the
// schema ("#/…" is followed), $anchor, $dynamicRef, and unevaluatedProperties and unevaluatedItems
// beside keywords that apply other schemas. "format", content… and keywords that nobody knows say
// nothing about a value. Patterns are those of ECMA-262, as far as PCRE2 reads them.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "vlm/core/json.h"
#include "vlm/core/regex.h"

namespace vlm {

class JsonSchema {
 public:
  // Throws Error naming `where` and the JSON pointer for a schema that is none, or has one of the
  // keywords above.
  JsonSchema(OrderedJson schema, const std::string& where);
  ~JsonSchema();
  JsonSchema(JsonSchema&&) noexcept;

  const OrderedJson& root() const { return *root_; }

  // Where and why the value doesn't satisfy the schema; empty: it does. Throws Error when following
  // the schema takes too many steps.
  std::string find_fault(const OrderedJson& value) const;
  // The same for a part of this schema, or another whose references are in this one.
  std::string find_fault(const OrderedJson& part, const OrderedJson& value) const;

 private:
  class Check;
  void prepare(const OrderedJson& schema, const std::string& pointer, const std::string& where);
  void prepare_parts(const OrderedJson& schema, const std::string& pointer,
                     const std::string& where);
  void prepare_reference(const std::string& reference, const std::string& pointer,
                         const std::string& where);
  void add_pattern(const std::string& pattern, const std::string& where);

  std::unique_ptr<const OrderedJson> root_;
  std::map<std::string, Regex> patterns_;
  std::set<std::string> references_;  // that were followed while preparing
};

// What "#", "#/$defs/size" names in the schema; null: nothing, or not of this form.
const OrderedJson* find_reference(const OrderedJson& root, const std::string& reference);

// "/properties/a~1b" + "c/d" → "/properties/a~1b/c~1d"
std::string join_pointer(const std::string& pointer, const std::string& member);

}  // namespace vlm
