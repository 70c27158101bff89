#include "vlm/core/schema/json_schema.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

bool is_whole_count(const OrderedJson& value) {
  if (value.is_number_integer()) return true;
  return value.is_number_float() && std::floor(value.get<double>()) == value.get<double>();
}

// ECMA-262's \uXXXX and $ in PCRE2's words.
std::string to_pcre(const std::string& pattern) {
  std::string text;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      if (pattern[i + 1] == 'u' && i + 5 < pattern.size()) {
        text += "\\x{" + pattern.substr(i + 2, 4) + "}";
        i += 5;
      } else {
        text += pattern.substr(i++, 2);
      }
      continue;
    }
    if (pattern[i] == '[') in_class = true;
    if (pattern[i] == ']') in_class = false;
    text += pattern[i] == '$' && !in_class ? "\\z" : std::string(1, pattern[i]);
  }
  return text;
}

bool is_applying(const OrderedJson& schema) {
  for (const char* key : {"allOf", "anyOf", "oneOf", "$ref", "if", "not", "dependentSchemas"}) {
    if (schema.contains(key)) return true;
  }
  return false;
}

[[noreturn]] void refuse_schema(const std::string& what, const std::string& pointer,
                                const std::string& where, const std::string& got = "") {
  throw Error(
      {.what = what, .where = concat(where, ": ", pointer.empty() ? "/" : pointer), .got = got});
}

}  // namespace

std::string join_pointer(const std::string& pointer, const std::string& member) {
  std::string joined = pointer + "/";
  for (const char c : member) joined += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return joined;
}

const OrderedJson* find_reference(const OrderedJson& root, const std::string& reference) {
  if (reference == "#") return &root;
  if (!reference.starts_with("#/")) return nullptr;
  // Percent signs of a URI first, then the pointer's own escapes.
  std::string plain;
  for (std::size_t i = 1; i < reference.size(); ++i) {
    const auto digit = [&](std::size_t at) {
      const auto found =
          std::string("0123456789abcdef")
              .find(at < reference.size() ? static_cast<char>(reference[at] | 0x20) : '\0');
      return found == std::string::npos ? -1 : static_cast<int>(found);
    };
    const bool is_code = reference[i] == '%' && digit(i + 1) >= 0 && digit(i + 2) >= 0;
    plain += is_code ? static_cast<char>(digit(i + 1) * 16 + digit(i + 2)) : reference[i];
    if (is_code) i += 2;
  }
  try {
    const OrderedJson::json_pointer pointer(plain);
    return root.contains(pointer) ? &root.at(pointer) : nullptr;
  } catch (const nlohmann::json::exception&) {
    return nullptr;
  }
}

JsonSchema::JsonSchema(OrderedJson schema, const std::string& where)
    : root_(std::make_unique<const OrderedJson>(std::move(schema))) {
  prepare(*root_, "", where);
}

JsonSchema::~JsonSchema() = default;
JsonSchema::JsonSchema(JsonSchema&&) noexcept = default;

void JsonSchema::add_pattern(const std::string& pattern, const std::string& where) {
  if (patterns_.count(pattern) > 0) return;
  patterns_.emplace(pattern, Regex::compile(to_pcre(pattern), where, pattern));
}

// Checks what find_fault relies on.
void JsonSchema::prepare(const OrderedJson& schema, const std::string& pointer,
                         const std::string& where) {
  if (schema.is_boolean()) return;
  if (!schema.is_object()) {
    refuse_schema("not a schema", pointer, where, describe(Json(schema)));
  }
  const auto check = [&](const char* key, bool is_right) {
    if (schema.contains(key) && !is_right) {
      refuse_schema("wrong value of a keyword", join_pointer(pointer, key), where,
                    describe(Json(schema[key])));
    }
  };
  const auto is_text = [](const OrderedJson& value) { return value.is_string(); };
  const auto are_texts = [&](const OrderedJson& value) {
    return value.is_array() && std::all_of(value.begin(), value.end(), is_text);
  };
  for (const char* key :
       {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}) {
    check(key, schema.contains(key) && schema[key].is_number());
  }
  check("multipleOf", schema.contains("multipleOf") && schema["multipleOf"] > 0);
  for (const char* key : {"minLength", "maxLength", "minItems", "maxItems", "minProperties",
                          "maxProperties", "minContains", "maxContains"}) {
    check(key, schema.contains(key) && is_whole_count(schema[key]) && schema[key] >= 0);
  }
  for (const char* key : {"pattern", "format", "$ref"}) {
    check(key, schema.contains(key) && is_text(schema[key]));
  }
  check("required", schema.contains("required") && are_texts(schema["required"]));
  check("uniqueItems", schema.contains("uniqueItems") && schema["uniqueItems"].is_boolean());
  check("enum", schema.contains("enum") && schema["enum"].is_array());
  if (schema.contains("type")) {
    const OrderedJson& type = schema["type"];
    const OrderedJson types = type.is_array() ? type : OrderedJson::array({type});
    for (const OrderedJson& one : types) {
      constexpr const char* kTypes[] = {"null",   "boolean", "string", "array",
                                        "object", "number",  "integer"};
      check("type", one.is_string() && std::find(std::begin(kTypes), std::end(kTypes),
                                                 one.get<std::string>()) != std::end(kTypes));
    }
  }
  if (schema.contains("pattern")) {
    add_pattern(schema["pattern"], concat(where, ": ", join_pointer(pointer, "pattern")));
  }
  for (const char* key : {"$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef"}) {
    if (schema.contains(key)) refuse_schema("unsupported keyword", pointer, where, key);
  }
  for (const char* key : {"unevaluatedProperties", "unevaluatedItems"}) {
    if (!schema.contains(key) || schema[key] == true || !is_applying(schema)) continue;
    refuse_schema("unsupported beside keywords that apply other schemas", pointer, where, key);
  }
  if (schema.contains("$ref")) prepare_reference(schema["$ref"], pointer, where);
  prepare_parts(schema, pointer, where);
}

void JsonSchema::prepare_reference(const std::string& reference, const std::string& pointer,
                                   const std::string& where) {
  const OrderedJson* target = find_reference(*root_, reference);
  if (!target) {
    refuse_schema("the reference names nothing in this schema", join_pointer(pointer, "$ref"),
                  where, reference);
  }
  if (references_.insert(reference).second) prepare(*target, reference.substr(1), where);
}

void JsonSchema::prepare_parts(const OrderedJson& schema, const std::string& pointer,
                               const std::string& where) {
  for (const char* key : {"not", "if", "then", "else", "items", "contains", "propertyNames",
                          "additionalProperties", "unevaluatedProperties", "unevaluatedItems"}) {
    if (schema.contains(key)) prepare(schema[key], join_pointer(pointer, key), where);
  }
  for (const char* key : {"allOf", "anyOf", "oneOf", "prefixItems"}) {
    if (!schema.contains(key)) continue;
    const std::string inside = join_pointer(pointer, key);
    if (!schema[key].is_array() || schema[key].empty()) {
      refuse_schema("wrong value of a keyword", inside, where, describe(Json(schema[key])));
    }
    for (std::size_t i = 0; i < schema[key].size(); ++i) {
      prepare(schema[key][i], join_pointer(inside, concat(i)), where);
    }
  }
  for (const char* key : {"properties", "patternProperties", "$defs", "definitions",
                          "dependentSchemas", "dependentRequired"}) {
    if (!schema.contains(key)) continue;
    const std::string inside = join_pointer(pointer, key);
    if (!schema[key].is_object()) {
      refuse_schema("wrong value of a keyword", inside, where, describe(Json(schema[key])));
    }
    for (const auto& [name, one] : schema[key].items()) {
      if (key == std::string("dependentRequired")) {
        prepare({{"required", one}}, join_pointer(inside, name), where);
        continue;
      }
      if (key == std::string("patternProperties")) add_pattern(name, concat(where, ": ", inside));
      prepare(one, join_pointer(inside, name), where);
    }
  }
}

}  // namespace vlm
