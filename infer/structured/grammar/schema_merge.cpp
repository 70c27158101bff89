#include "infer/structured/grammar/schema_merge.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "infer/structured/grammar/schema_keywords.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

[[noreturn]] void refuse_merge(const std::string& key, const std::string& where) {
  throw Error({.what = "the schema can't be kept exactly",
               .where = where,
               .got = concat("'", key, "' in two schemas for the same value"),
               .hint = "say it in one"});
}

OrderedJson to_list(const OrderedJson& value) {
  return value.is_array() ? value : OrderedJson::array({value});
}

bool has_item(const OrderedJson& list, const OrderedJson& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

// "number" holds "integer".
OrderedJson common_types(const OrderedJson& a, const OrderedJson& b) {
  OrderedJson types = OrderedJson::array();
  for (const OrderedJson& one : to_list(a)) {
    const OrderedJson others = to_list(b);
    if (has_item(others, one) || (one == "integer" && has_item(others, "number"))) {
      types.push_back(one);
    } else if (one == "number" && has_item(others, "integer")) {
      types.push_back("integer");
    }
  }
  return types;
}

OrderedJson union_of(const OrderedJson& a, const OrderedJson& b) {
  OrderedJson all = a;
  for (const OrderedJson& one : b) {
    if (!has_item(all, one)) all.push_back(one);
  }
  return all;
}

OrderedJson merge_properties(const OrderedJson& a, const OrderedJson& b, const std::string& where) {
  OrderedJson all = a;
  for (const auto& [name, schema] : b.items()) {
    all[name] =
        all.contains(name) ? merge_schemas(all[name], schema, concat(where, "/", name)) : schema;
  }
  return all;
}

bool is_greater_bound(const std::string& key) {
  return key == "minimum" || key == "exclusiveMinimum" || key == "minLength" || key == "minItems" ||
         key == "minProperties";
}

bool is_less_bound(const std::string& key) {
  return key == "maximum" || key == "exclusiveMaximum" || key == "maxLength" || key == "maxItems" ||
         key == "maxProperties";
}

OrderedJson merge_keyword(const std::string& key, const OrderedJson& a, const OrderedJson& b,
                          const std::string& where) {
  if (a == b) return a;
  if (is_greater_bound(key)) return std::max(a, b);
  if (is_less_bound(key)) return std::min(a, b);
  if (key == "type") return common_types(a, b);
  if (key == "required") return union_of(a, b);
  if (key == "properties") return merge_properties(a, b, where + "/properties");
  if (key == "items" || key == "additionalProperties" || key == "propertyNames") {
    return merge_schemas(a, b, concat(where, "/", key));
  }
  if (key == "enum") {
    OrderedJson common = OrderedJson::array();
    for (const OrderedJson& one : a) {
      if (has_item(b, one)) common.push_back(one);
    }
    return common;
  }
  refuse_merge(key, where);
}

// Properties of one may not be those that the other leaves to its additionalProperties.
void check_closed(const OrderedJson& a, const OrderedJson& b, const std::string& where) {
  if (!a.contains("additionalProperties") || a["additionalProperties"] == true) return;
  const OrderedJson properties = b.value("properties", OrderedJson::object());
  for (const auto& [name, schema] : properties.items()) {
    if (a.value("properties", OrderedJson::object()).contains(name)) continue;
    refuse_merge("additionalProperties", where);
  }
}

}  // namespace

bool has_assertions(const OrderedJson& schema) {
  if (schema.is_boolean()) return !schema.get<bool>();
  return std::any_of(schema.items().begin(), schema.items().end(), [](const auto& member) {
    return kind_of_keyword(member.key()) != KeywordKind::kSilent;
  });
}

std::optional<OrderedJson> without_unevaluated(const OrderedJson& schema) {
  const std::pair<const char*, const char*> names[] = {
      {"unevaluatedProperties", "additionalProperties"}, {"unevaluatedItems", "items"}};
  std::optional<OrderedJson> plain;
  for (const auto& [name, usual] : names) {
    if (!schema.is_object() || !schema.contains(name)) continue;
    if (!plain) plain = schema;
    if (schema[name] == false && !schema.contains(usual)) (*plain)[usual] = false;
    plain->erase(name);
  }
  return plain;
}

OrderedJson merge_schemas(const OrderedJson& a, const OrderedJson& b, const std::string& where) {
  if (const auto plain = without_unevaluated(a)) return merge_schemas(*plain, b, where);
  if (const auto plain = without_unevaluated(b)) return merge_schemas(a, *plain, where);
  if (!has_assertions(a)) return b;
  if (!has_assertions(b)) return a;
  if (a.is_boolean() || b.is_boolean()) return false;
  check_closed(a, b, where);
  check_closed(b, a, where);
  const bool is_tuple = a.contains("prefixItems") != b.contains("prefixItems") &&
                        (a.contains("items") || b.contains("items"));
  if (is_tuple) refuse_merge("prefixItems", where);
  OrderedJson merged = OrderedJson::object();
  for (const auto& [key, value] : a.items()) {
    if (kind_of_keyword(key) == KeywordKind::kSilent) continue;
    merged[key] = b.contains(key) ? merge_keyword(key, value, b[key], where) : value;
  }
  for (const auto& [key, value] : b.items()) {
    if (kind_of_keyword(key) != KeywordKind::kSilent && !merged.contains(key)) merged[key] = value;
  }
  return merged;
}

}  // namespace vlm::infer
