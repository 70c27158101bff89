#include "infer/structured/grammar/schema_grammar.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "infer/structured/grammar/code_points.h"
#include "infer/structured/grammar/grammar_rules.h"
#include "infer/structured/grammar/number_grammar.h"
#include "infer/structured/grammar/object_grammar.h"
#include "infer/structured/grammar/pattern_grammar.h"
#include "infer/structured/grammar/schema_keywords.h"
#include "infer/structured/grammar/schema_merge.h"
#include "infer/structured/grammar/schema_types.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/schema/json_schema.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostItems = 10'000;
constexpr std::int64_t kMostCharacters = 100'000;

OrderedJson without(OrderedJson schema, std::initializer_list<const char*> keys) {
  for (const char* key : keys) schema.erase(key);
  return schema;
}

class SchemaWriter {
 public:
  SchemaWriter(const JsonSchema& schema, const std::string& where, const SchemaLimits& limits)
      : schema_(schema), where_(where), limits_(limits) {}

  std::string write() {
    const std::string root = expression(schema_.root(), "");
    return rules_.to_text(root);
  }

 private:
  std::string place(const std::string& pointer) const {
    return concat(where_, ": ", pointer.empty() ? "/" : pointer);
  }
  [[noreturn]] void refuse(const std::string& what, const std::string& pointer,
                           const std::string& got = "", const std::string& hint = "") const {
    throw Error({.what = what, .where = place(pointer), .got = got, .hint = hint});
  }
  void check_limit(const char* what, std::int64_t count, std::int64_t most,
                   const std::string& pointer) const {
    if (count <= most) return;
    throw Error({.what = concat("the schema has too many ", what),
                 .where = place(pointer),
                 .wanted = concat("at most ", most)});
  }

  // A rule or literal for the values of the schema.
  std::string expression(const OrderedJson& schema, const std::string& pointer) {
    check_limit("parts", ++nodes_, limits_.nodes, pointer);
    check_limit("levels", ++depth_, limits_.depth, pointer);
    check_limit("rules", static_cast<std::int64_t>(rules_.bytes()),
                static_cast<std::int64_t>(limits_.grammar_bytes), pointer);
    std::string text = write_schema(schema, pointer);
    --depth_;
    return text;
  }

  std::string write_schema(const OrderedJson& schema, const std::string& pointer) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) refuse("no value satisfies the schema", pointer, "false");
      return rules_.any();
    }
    check_keywords(schema, place(pointer));
    if (const auto plain = without_unevaluated(schema)) return write_schema(*plain, pointer);
    if (schema.contains("$ref")) return write_reference(schema, pointer);
    if (schema.contains("allOf")) return expression(merge_all(schema, pointer), pointer);
    for (const char* key : {"oneOf", "anyOf"}) {
      if (schema.contains(key)) return write_branches(schema, key, pointer);
    }
    if (auto values = values_of(schema)) return write_values(schema, *values, pointer);
    return write_types(schema, pointer);
  }

  const OrderedJson& target_of(const OrderedJson& schema) const {
    return *find_reference(schema_.root(), schema["$ref"].get<std::string>());
  }

  std::string write_reference(const OrderedJson& schema, const std::string& pointer) {
    const OrderedJson rest = without(schema, {"$ref"});
    const std::string reference = schema["$ref"];
    if (has_assertions(rest)) {
      return expression(merge_schemas(resolved(target_of(schema), pointer), rest, place(pointer)),
                        pointer);
    }
    const auto known = references_.find(reference);
    if (known != references_.end()) return known->second;
    check_circle(reference, pointer);
    const std::string name = rules_.reserve();
    references_[reference] = name;
    // A schema that is referred to may be as deep as the whole.
    const int depth = std::exchange(depth_, 0);
    check_limit("references", ++reference_depth_, limits_.depth, pointer);
    rules_.set(name, expression(target_of(schema), reference.substr(1)));
    --reference_depth_;
    depth_ = depth;
    return name;
  }

  // References that lead to nothing but each other allow no value.
  void check_circle(std::string reference, const std::string& pointer) const {
    for (int steps = 0; steps <= limits_.depth; ++steps) {
      const OrderedJson& target = *find_reference(schema_.root(), reference);
      if (!target.is_object() || !target.contains("$ref")) return;
      reference = target["$ref"];
    }
    refuse("the references lead in a circle", pointer, reference);
  }

  // The schema without a reference or allOf at its top.
  OrderedJson resolved(const OrderedJson& schema, const std::string& pointer) {
    check_limit("parts", ++nodes_, limits_.nodes, pointer);
    check_limit("levels", ++depth_, limits_.depth, pointer);
    OrderedJson plain = schema;
    if (schema.is_object() && schema.contains("$ref")) {
      plain = merge_schemas(resolved(target_of(schema), pointer), without(schema, {"$ref"}),
                            place(pointer));
    }
    if (plain.is_object() && plain.contains("allOf")) plain = merge_all(plain, pointer);
    if (plain.is_object()) check_keywords(plain, place(pointer));
    --depth_;
    return without_unevaluated(plain).value_or(plain);
  }

  OrderedJson merge_all(const OrderedJson& schema, const std::string& pointer) {
    OrderedJson merged = without(schema, {"allOf"});
    std::size_t i = 0;
    for (const OrderedJson& part : schema["allOf"]) {
      const std::string inside = join_pointer(pointer + "/allOf", concat(i++));
      merged = merge_schemas(merged, resolved(part, inside), place(inside));
    }
    return merged;
  }

  std::string write_branches(const OrderedJson& schema, const char* key,
                             const std::string& pointer) {
    const OrderedJson rest = without(schema, {key});
    std::vector<OrderedJson> branches;
    std::vector<std::string> choices;
    for (const OrderedJson& branch : schema[key]) {
      const std::string inside = join_pointer(join_pointer(pointer, key), concat(choices.size()));
      const bool is_alone = !has_assertions(rest);
      if (key == std::string("oneOf")) branches.push_back(resolved(branch, inside));
      choices.push_back(expression(
          is_alone ? branch : merge_schemas(rest, resolved(branch, inside), place(inside)),
          inside));
    }
    for (std::size_t i = 0; i < branches.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (is_disjoint(branches[i], branches[j], schema_)) continue;
        refuse("the schema can't be kept exactly", join_pointer(pointer, key),
               concat("'oneOf', whose ", j, " and ", i, " may both hold"),
               "anyOf, or a type or a required const of its own in each");
      }
    }
    return rules_.add(join(choices, " | "));
  }

  // The listed values that satisfy what else the schema says.
  std::string write_values(const OrderedJson& schema, const OrderedJson& values,
                           const std::string& pointer) {
    check_limit("enum values", values_ += std::ssize(values), limits_.enum_values, pointer);
    std::vector<std::string> choices;
    for (const OrderedJson& value : values) {
      if (!schema_.find_fault(schema, value).empty()) continue;
      choices.push_back(to_literal(value.dump()));
    }
    if (choices.empty()) refuse("no listed value satisfies the schema", pointer);
    return rules_.add(join(choices, " | "));
  }

  std::string write_types(const OrderedJson& schema, const std::string& pointer) {
    const std::vector<std::string> types = types_of(schema);
    if (types.empty()) {
      if (schema.contains("type")) refuse("no value satisfies the schema", pointer, "'type'");
      return rules_.any();
    }
    std::vector<std::string> choices;
    for (const std::string& type : types) choices.push_back(write_type(type, schema, pointer));
    return rules_.add(join(choices, " | "));
  }

  std::string write_type(const std::string& type, const OrderedJson& schema,
                         const std::string& pointer) {
    if (type == "null") return "\"null\"";
    if (type == "boolean") return "\"true\" | \"false\"";
    if (type == "string") return write_string(schema, pointer);
    if (type == "array") return write_array(schema, pointer);
    if (type == "object") return write_object(schema, pointer);
    NumberBounds bounds;
    if (schema.contains("minimum")) bounds.least = schema["minimum"].get<double>();
    if (schema.contains("maximum")) bounds.most = schema["maximum"].get<double>();
    if (schema.contains("exclusiveMinimum")) {
      const double least = schema["exclusiveMinimum"];
      bounds.excludes_least = !bounds.least || least >= *bounds.least;
      if (bounds.excludes_least) bounds.least = least;
    }
    if (schema.contains("exclusiveMaximum")) {
      const double most = schema["exclusiveMaximum"];
      bounds.excludes_most = !bounds.most || most <= *bounds.most;
      if (bounds.excludes_most) bounds.most = most;
    }
    std::optional<double> step;
    if (schema.contains("multipleOf")) step = schema["multipleOf"].get<double>();
    if (type == "integer") return integer_to_grammar(bounds, step, place(pointer));
    if (step) {
      refuse("the schema can't be kept exactly", pointer, "'multipleOf' of numbers",
             "\"type\": \"integer\" with minimum and maximum");
    }
    return number_to_grammar(bounds, place(pointer));
  }

  std::string write_string(const OrderedJson& schema, const std::string& pointer) {
    const bool has_length = schema.contains("minLength") || schema.contains("maxLength");
    const bool has_pattern = schema.contains("pattern"), has_format = schema.contains("format");
    if (static_cast<int>(has_length) + static_cast<int>(has_pattern) +
            static_cast<int>(has_format) >
        1) {
      refuse("the schema can't be kept exactly", pointer,
             concat("'", has_pattern ? "pattern" : "format", "' beside ",
                    has_length ? "a length" : "'format'"),
             "a pattern with counts says both");
    }
    if (has_pattern || has_format) {
      const std::string pattern = has_pattern ? schema["pattern"].get<std::string>()
                                              : pattern_of_format(schema["format"], place(pointer));
      return concat(
          "\"\\\"\" ",
          pattern_to_grammar(pattern, {.in_json = true, .is_search = true}, place(pointer)),
          " \"\\\"\"");
    }
    if (!has_length) return rules_.text();
    const auto least = schema.value("minLength", std::int64_t{0});
    const auto most = schema.value("maxLength", std::int64_t{-1});
    check_limit("characters in a string", std::max(least, most), kMostCharacters, pointer);
    if (most >= 0 && most < least) refuse("no string is so long and so short", pointer);
    if (most == 0) return "\"\\\"\\\"\"";
    return concat("\"\\\"\" ", rules_.character(), "{", least, ",", most < 0 ? "" : concat(most),
                  "} \"\\\"\"");
  }

  std::string write_array(const OrderedJson& schema, const std::string& pointer) {
    const std::string ws = rules_.space();
    const OrderedJson first = schema.value("prefixItems", OrderedJson::array());
    const auto least = schema.value("minItems", std::int64_t{0});
    auto most = schema.value("maxItems", std::int64_t{-1});
    check_limit("items in a list", std::max(least, most), kMostItems, pointer);
    // Behind prefixItems there is nothing more unless items says what.
    const bool has_items = schema.contains("items") ? schema["items"] != false : first.empty();
    const auto named = std::ssize(first);
    if (!has_items) most = most < 0 ? named : std::min(most, named);
    if (most >= 0 && least > most) refuse("no list is so long and so short", pointer);
    if (most == 0) return concat("\"[\" ", ws, " \"]\"");
    std::vector<std::string> items;
    for (std::int64_t i = 0; i < named && (most < 0 || i < most); ++i) {
      items.push_back(expression(first[static_cast<std::size_t>(i)],
                                 join_pointer(pointer + "/prefixItems", concat(i))));
    }
    std::string rest;
    if (has_items && (most < 0 || most > named)) {
      rest = schema.contains("items") ? expression(schema["items"], join_pointer(pointer, "items"))
                                      : rules_.any();
    }
    return concat("\"[\" ", ws, " ", write_items(items, rest, least, most), "\"]\"");
  }

  // Items with commas between them: those in `items`, then as many of `rest` as there may be.
  std::string write_items(const std::vector<std::string>& items, const std::string& rest,
                          std::int64_t least, std::int64_t most) {
    const std::string ws = rules_.space();
    const auto named = std::ssize(items);
    const std::string comma = concat("\",\" ", ws, " ");
    std::string tail;
    if (!rest.empty()) {
      const std::int64_t before = std::max<std::int64_t>(named, 1);
      tail = concat("(", comma, "(", rest, ")){", std::max<std::int64_t>(least - before, 0), ",",
                    most < 0 ? "" : concat(most - before), "} ");
      if (most >= 0 && most == before) tail.clear();
    }
    for (std::int64_t i = named - 1; i >= 1; --i) {
      const std::string next = concat(comma, "(", items[static_cast<std::size_t>(i)], ") ", tail);
      tail = least > i ? next : concat(rules_.add(concat("(", next, ")?")), " ");
    }
    const std::string head = named > 0 ? items[0] : rest;
    const std::string all = concat("(", head, ") ", tail, ws, " ");
    return least > 0 ? all : concat("(", all, ")? ");
  }

  std::string write_object(const OrderedJson& schema, const std::string& pointer) {
    ObjectParts parts = read_object(schema, place(pointer));
    check_limit("properties", properties_ += std::ssize(parts.members), limits_.properties,
                pointer);
    const std::string ws = rules_.space();
    for (ObjectMember& member : parts.members) {
      const std::string inside = join_pointer(pointer + "/properties", member.name);
      member.grammar = concat(to_literal(OrderedJson(member.name).dump()), " \":\" ", ws, " (",
                              expression(*member.schema, inside), ") ");
      if (!member.is_required) member.grammar = rules_.add(member.grammar) + " ";
    }
    if (parts.rest) {
      const std::string key =
          parts.key_pattern
              ? concat("\"\\\"\" ",
                       pattern_to_grammar(*parts.key_pattern, {.in_json = true, .is_search = true},
                                          place(pointer)),
                       " \"\\\"\"")
          : parts.members.empty() ? write_key(parts, pointer)
                                  : other_keys(parts, rules_);
      const std::string rest =
          parts.key_pattern ? join_pointer(pointer + "/patternProperties", *parts.key_pattern)
                            : join_pointer(pointer, "additionalProperties");
      parts.rest_grammar = concat(key, " \":\" ", ws, " (", expression(*parts.rest, rest), ") ");
    }
    return concat("\"{\" ", ws, " ", write_members(parts, rules_, place(pointer)), "\"}\"");
  }

  // Of an object without named properties.
  std::string write_key(const ObjectParts& parts, const std::string& pointer) {
    if (!parts.names) return rules_.text();
    const OrderedJson names = merge_schemas(*parts.names, {{"type", "string"}}, place(pointer));
    return concat("(", expression(names, join_pointer(pointer, "propertyNames")), ")");
  }

  const JsonSchema& schema_;
  const std::string& where_;
  const SchemaLimits& limits_;
  GrammarRules rules_;
  std::map<std::string, std::string> references_;  // reference → rule
  std::int64_t nodes_ = 0, values_ = 0, properties_ = 0;
  int depth_ = 0, reference_depth_ = 0;
};

}  // namespace

std::string schema_to_grammar(const std::string& text, const std::string& where,
                              const SchemaLimits& limits) {
  if (text.size() > limits.text_bytes) {
    throw Error({.what = "the schema is too large",
                 .where = where,
                 .got = concat(text.size(), " bytes"),
                 .wanted = concat("at most ", limits.text_bytes)});
  }
  const JsonSchema schema(parse_ordered_json(text, where), where);
  std::string grammar = SchemaWriter(schema, where, limits).write();
  if (grammar.size() <= limits.grammar_bytes) return grammar;
  throw Error({.what = "the schema has too many rules",
               .where = where,
               .got = concat(grammar.size(), " bytes of grammar"),
               .wanted = concat("at most ", limits.grammar_bytes)});
}

std::string json_object_grammar() {
  GrammarRules rules;
  const std::string root = rules.any_object();
  return rules.to_text(root);
}

}  // namespace vlm::infer
