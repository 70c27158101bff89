// Two schemas for the same value → one that says both.
//
// What can't be said in one schema is an Error: two patterns, two formats, properties of one that
// the other closes out. Keywords that say nothing about a value are dropped.
#pragma once

#include <optional>
#include <string>

#include "vlm/core/json.h"

namespace vlm::infer {

// Whether the schema has a keyword that says something about a value.
bool has_assertions(const OrderedJson& schema);

// unevaluatedProperties and unevaluatedItems in the words of additionalProperties and items: where
// these are accepted (check_keywords, JsonSchema), no other schema applies beside them. Nothing
// where there is none.
std::optional<OrderedJson> without_unevaluated(const OrderedJson& schema);

// `where` is the place in the schema, for errors.
OrderedJson merge_schemas(const OrderedJson& a, const OrderedJson& b, const std::string& where);

}  // namespace vlm::infer
