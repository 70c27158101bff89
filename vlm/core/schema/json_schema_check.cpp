// Whether a value satisfies a JSON schema: JsonSchema::find_fault.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/schema/json_schema.h"

namespace vlm {
namespace {

constexpr int kMostSteps = 100'000;
constexpr int kMostLevels = 400;  // schemas inside schemas, references followed

bool is_integer(const OrderedJson& value) {
  if (value.is_number_integer()) return true;
  return value.is_number_float() && std::floor(value.get<double>()) == value.get<double>();
}

bool has_type(const OrderedJson& value, const std::string& type) {
  return (type == "null" && value.is_null()) || (type == "boolean" && value.is_boolean()) ||
         (type == "string" && value.is_string()) || (type == "array" && value.is_array()) ||
         (type == "object" && value.is_object()) || (type == "number" && value.is_number()) ||
         (type == "integer" && is_integer(value));
}

// Objects are equal whatever the order of their members.
bool is_equal(const OrderedJson& a, const OrderedJson& b) {
  return Json(a) == Json(b);
}

std::size_t count_characters(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// An object without members where the schema lacks the keyword.
const OrderedJson& members_of(const OrderedJson& schema, const char* key) {
  static const OrderedJson none = OrderedJson::object();
  const auto found = schema.find(key);
  return found == schema.end() ? none : *found;
}

}  // namespace

// One value against one schema.
class JsonSchema::Check {
 public:
  explicit Check(const JsonSchema& schema) : schema_(schema) {}

  // The fault is that of the first keyword that isn't satisfied.
  std::string find(const OrderedJson& schema, const OrderedJson& value, const std::string& at) {
    if (++steps_ > kMostSteps || ++levels_ > kMostLevels) {
      throw Error({.what = "the schema takes too many steps", .where = at.empty() ? "/" : at});
    }
    std::string fault = find_inside(schema, value, at);
    --levels_;
    return fault;
  }

 private:
  static std::string fault_at(const std::string& at, const std::string& what) {
    return concat(at.empty() ? "/" : at, ": ", what);
  }

  bool fits(const OrderedJson& schema, const OrderedJson& value, const std::string& at) {
    return find(schema, value, at).empty();
  }

  std::string find_inside(const OrderedJson& schema, const OrderedJson& value,
                          const std::string& at) {
    if (schema.is_boolean()) return schema.get<bool>() ? "" : fault_at(at, "no value is allowed");
    std::string fault = find_in_any(schema, value, at);
    if (fault.empty()) fault = find_in_applied(schema, value, at);
    if (fault.empty() && value.is_number()) fault = find_in_number(schema, value, at);
    if (fault.empty() && value.is_string()) fault = find_in_string(schema, value, at);
    if (fault.empty() && value.is_array()) fault = find_in_array(schema, value, at);
    if (fault.empty() && value.is_object()) fault = find_in_object(schema, value, at);
    return fault;
  }

  std::string find_in_any(const OrderedJson& schema, const OrderedJson& value,
                          const std::string& at) {
    if (const auto type = schema.find("type"); type != schema.end()) {
      const OrderedJson types = type->is_array() ? *type : OrderedJson::array({*type});
      if (std::none_of(types.begin(), types.end(), [&](const OrderedJson& one) {
            return has_type(value, one.get<std::string>());
          })) {
        return fault_at(at, concat("not of type ", type->dump()));
      }
    }
    if (schema.contains("const") && !is_equal(schema["const"], value)) {
      return fault_at(at, "not the constant");
    }
    if (const auto values = schema.find("enum"); values != schema.end()) {
      if (std::none_of(values->begin(), values->end(),
                       [&](const OrderedJson& one) { return is_equal(one, value); })) {
        return fault_at(at, "not one of the enum");
      }
    }
    return "";
  }

  // Keywords that hold other schemas for the same value.
  std::string find_in_applied(const OrderedJson& schema, const OrderedJson& value,
                              const std::string& at) {
    if (const auto ref = schema.find("$ref"); ref != schema.end()) {
      const std::string fault =
          find(*find_reference(schema_.root(), ref->get<std::string>()), value, at);
      if (!fault.empty()) return fault;
    }
    if (const auto all = schema.find("allOf"); all != schema.end()) {
      for (const OrderedJson& one : *all) {
        const std::string fault = find(one, value, at);
        if (!fault.empty()) return fault;
      }
    }
    const auto count = [&](const OrderedJson& list) {
      return std::count_if(list.begin(), list.end(),
                           [&](const OrderedJson& one) { return fits(one, value, at); });
    };
    if (schema.contains("anyOf") && count(schema["anyOf"]) == 0) {
      return fault_at(at, "satisfies none of anyOf");
    }
    if (schema.contains("oneOf") && count(schema["oneOf"]) != 1) {
      return fault_at(at, "doesn't satisfy exactly one of oneOf");
    }
    if (schema.contains("not") && fits(schema["not"], value, at)) {
      return fault_at(at, "satisfies what it must not");
    }
    if (!schema.contains("if")) return "";
    const char* branch = fits(schema["if"], value, at) ? "then" : "else";
    return schema.contains(branch) ? find(schema[branch], value, at) : "";
  }

  static std::string find_in_number(const OrderedJson& schema, const OrderedJson& value,
                                    const std::string& at) {
    const auto number = value.get<double>();
    const auto bound = [&](const char* key) -> std::optional<double> {
      return schema.contains(key) ? std::optional(schema[key].get<double>()) : std::nullopt;
    };
    const auto least = bound("minimum"), above = bound("exclusiveMinimum");
    const auto most = bound("maximum"), below = bound("exclusiveMaximum");
    if ((least && number < *least) || (above && number <= *above)) {
      return fault_at(at, "below the minimum");
    }
    if ((most && number > *most) || (below && number >= *below)) {
      return fault_at(at, "above the maximum");
    }
    if (const auto step = bound("multipleOf")) {
      const double times = number / *step;
      if (std::abs(times - std::round(times)) > 1e-9 * std::max(1.0, std::abs(times))) {
        return fault_at(at, concat("not a multiple of ", *step));
      }
    }
    return "";
  }

  static std::string find_wrong_count(const OrderedJson& schema, const char* least,
                                      const char* most, std::size_t count, const std::string& at) {
    if (schema.contains(least) && static_cast<double>(count) < schema[least].get<double>()) {
      return fault_at(at, concat("below ", least, " ", schema[least].dump()));
    }
    if (schema.contains(most) && static_cast<double>(count) > schema[most].get<double>()) {
      return fault_at(at, concat("above ", most, " ", schema[most].dump()));
    }
    return "";
  }

  std::string find_in_string(const OrderedJson& schema, const OrderedJson& value,
                             const std::string& at) {
    const auto& text = value.get_ref<const std::string&>();
    std::string fault =
        find_wrong_count(schema, "minLength", "maxLength", count_characters(text), at);
    if (!fault.empty() || !schema.contains("pattern")) return fault;
    return matches(schema["pattern"], text) ? "" : fault_at(at, "doesn't match the pattern");
  }

  bool matches(const std::string& pattern, const std::string& text) const {
    return schema_.patterns_.at(pattern).find(text).has_value();
  }

  std::string find_in_array(const OrderedJson& schema, const OrderedJson& value,
                            const std::string& at) {
    std::string fault = find_wrong_count(schema, "minItems", "maxItems", value.size(), at);
    const std::size_t first = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
    const char* rest = schema.contains("items") ? "items" : "unevaluatedItems";
    for (std::size_t i = 0; i < value.size() && fault.empty(); ++i) {
      const std::string inside = join_pointer(at, concat(i));
      if (i < first) {
        fault = find(schema["prefixItems"][i], value[i], inside);
      } else if (schema.contains(rest)) {
        fault = find(schema[rest], value[i], inside);
      }
    }
    if (fault.empty() && schema.value("uniqueItems", false)) {
      for (std::size_t i = 0; i < value.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
          if (is_equal(value[i], value[j])) return fault_at(at, "items aren't unique");
        }
      }
    }
    if (!fault.empty() || !schema.contains("contains")) return fault;
    const auto count = std::count_if(value.begin(), value.end(), [&](const OrderedJson& item) {
      return fits(schema["contains"], item, at);
    });
    const auto found = static_cast<double>(count);
    const bool is_right = found >= schema.value("minContains", 1.0) &&
                          (!schema.contains("maxContains") || found <= schema["maxContains"]);
    return is_right ? "" : fault_at(at, "doesn't contain what it must");
  }

  std::string find_in_object(const OrderedJson& schema, const OrderedJson& value,
                             const std::string& at) {
    std::string fault =
        find_wrong_count(schema, "minProperties", "maxProperties", value.size(), at);
    if (fault.empty() && schema.contains("required")) {
      fault = find_missing(schema["required"], value, at);
    }
    for (const auto& [name, member] : value.items()) {
      if (fault.empty()) fault = find_in_member(schema, name, member, at);
    }
    if (!fault.empty()) return fault;
    for (const auto& [name, names] : members_of(schema, "dependentRequired").items()) {
      if (fault.empty() && value.contains(name)) fault = find_missing(names, value, at);
    }
    for (const auto& [name, other] : members_of(schema, "dependentSchemas").items()) {
      if (fault.empty() && value.contains(name)) fault = find(other, value, at);
    }
    return fault;
  }

  static std::string find_missing(const OrderedJson& names, const OrderedJson& value,
                                  const std::string& at) {
    for (const OrderedJson& name : names) {
      if (value.contains(name.get<std::string>())) continue;
      return fault_at(at, concat("no ", name.dump()));
    }
    return "";
  }

  std::string find_in_member(const OrderedJson& schema, const std::string& name,
                             const OrderedJson& member, const std::string& at) {
    const std::string inside = join_pointer(at, name);
    std::string fault;
    bool is_named = false;
    if (schema.contains("properties") && schema["properties"].contains(name)) {
      is_named = true;
      fault = find(schema["properties"][name], member, inside);
    }
    for (const auto& [pattern, other] : members_of(schema, "patternProperties").items()) {
      if (!fault.empty() || !matches(pattern, name)) continue;
      is_named = true;
      fault = find(other, member, inside);
    }
    const char* rest =
        schema.contains("additionalProperties") ? "additionalProperties" : "unevaluatedProperties";
    if (fault.empty() && !is_named && schema.contains(rest)) {
      fault = find(schema[rest], member, inside);
    }
    if (fault.empty() && schema.contains("propertyNames")) {
      fault = find(schema["propertyNames"], name, inside);
    }
    return fault;
  }

  const JsonSchema& schema_;
  int steps_ = 0, levels_ = 0;
};

std::string JsonSchema::find_fault(const OrderedJson& value) const {
  return find_fault(*root_, value);
}

std::string JsonSchema::find_fault(const OrderedJson& part, const OrderedJson& value) const {
  return Check(*this).find(part, value, "");
}

}  // namespace vlm
