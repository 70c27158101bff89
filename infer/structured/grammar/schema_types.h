// What values a schema is about: their types, listed values, and whether two schemas share any.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/core/schema/json_schema.h"

namespace vlm::infer {

// The types that the schema names or, where it names none, those that its keywords are about.
std::vector<std::string> types_of(const OrderedJson& schema);

// The values that the schema lists; nothing where it lists none.
std::optional<OrderedJson> values_of(const OrderedJson& schema);

// True where no value can satisfy both, as far as types, listed values and required properties
// tell. Both are parts of `whole`, without references at their tops.
bool is_disjoint(const OrderedJson& a, const OrderedJson& b, const JsonSchema& whole);

}  // namespace vlm::infer
