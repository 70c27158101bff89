#include "infer/structured/grammar/schema_types.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace vlm::infer {
namespace {

// Types whose keywords the schema has: what it is about where it names no type.
std::vector<std::string> implied_types(const OrderedJson& schema) {
  static const std::vector<std::pair<const char*, std::vector<const char*>>> kOwn = {
      {"object",
       {"properties", "required", "minProperties", "maxProperties", "propertyNames",
        "patternProperties", "additionalProperties"}},
      {"array", {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}},
      {"string", {"minLength", "maxLength", "pattern", "format"}},
      {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}}};
  std::vector<std::string> types;
  for (const auto& [type, keys] : kOwn) {
    if (std::any_of(keys.begin(), keys.end(),
                    [&](const char* key) { return schema.contains(key); })) {
      types.emplace_back(type);
    }
  }
  return types;
}

bool lists_none(const OrderedJson& values, const OrderedJson& schema, const JsonSchema& whole) {
  return std::none_of(values.begin(), values.end(), [&](const OrderedJson& value) {
    return whole.find_fault(schema, value).empty();
  });
}

// A property that `a` requires, with values that `b`, which requires it too, doesn't have; or
// that `b` forbids.
bool has_other_property(const OrderedJson& a, const OrderedJson& b, const JsonSchema& whole) {
  const auto empty = OrderedJson::object();
  const OrderedJson own = a.value("properties", empty), other = b.value("properties", empty);
  for (const OrderedJson& name : a.value("required", OrderedJson::array())) {
    const std::string key = name;
    if (!other.contains(key)) {
      if (b.value("additionalProperties", OrderedJson(true)) == false &&
          !b.contains("patternProperties")) {
        return true;
      }
      continue;
    }
    const bool is_required = [&] {
      for (const OrderedJson& one : b.value("required", OrderedJson::array())) {
        if (one == name) return true;
      }
      return false;
    }();
    if (!is_required || !own.contains(key)) continue;
    if (!own[key].is_object() || !other[key].is_object()) continue;
    if (!values_of(own[key]) && !values_of(other[key])) continue;
    if (is_disjoint(own[key], other[key], whole)) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> types_of(const OrderedJson& schema) {
  if (!schema.contains("type")) return implied_types(schema);
  const OrderedJson& type = schema["type"];
  std::vector<std::string> types;
  for (const OrderedJson& one : type.is_array() ? type : OrderedJson::array({type})) {
    types.push_back(one);
  }
  const bool has_number = std::find(types.begin(), types.end(), "number") != types.end();
  if (has_number) std::erase(types, "integer");
  return types;
}

std::optional<OrderedJson> values_of(const OrderedJson& schema) {
  if (schema.contains("const")) return OrderedJson::array({schema["const"]});
  if (schema.contains("enum")) return schema["enum"];
  return std::nullopt;
}

bool is_disjoint(const OrderedJson& a, const OrderedJson& b, const JsonSchema& whole) {
  if (a == false || b == false) return true;
  if (a.is_boolean() || b.is_boolean()) return false;
  const auto a_values = values_of(a), b_values = values_of(b);
  if (a_values) return lists_none(*a_values, b, whole);
  if (b_values) return lists_none(*b_values, a, whole);
  // Types that aren't written don't tell: a keyword alone lets other types pass.
  const auto a_types = a.contains("type") ? types_of(a) : std::vector<std::string>();
  const auto b_types = b.contains("type") ? types_of(b) : std::vector<std::string>();
  if (!a_types.empty() && !b_types.empty() &&
      std::none_of(a_types.begin(), a_types.end(), [&](const std::string& type) {
        return std::any_of(b_types.begin(), b_types.end(), [&](const std::string& other) {
          const bool are_numbers = type != other && (type == "number" || type == "integer") &&
                                   (other == "number" || other == "integer");
          return type == other || are_numbers;
        });
      })) {
    return true;
  }
  const bool are_objects = a_types == std::vector<std::string>{"object"} && a_types == b_types;
  return are_objects && (has_other_property(a, b, whole) || has_other_property(b, a, whole));
}

}  // namespace vlm::infer
