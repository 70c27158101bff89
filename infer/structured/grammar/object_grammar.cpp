#include "infer/structured/grammar/object_grammar.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "infer/structured/grammar/code_points.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/schema/json_schema.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostCounted = 64;  // properties beside minProperties or maxProperties

const OrderedJson& any_value() {
  static const OrderedJson schema = true;
  return schema;
}

[[noreturn]] void refuse_object(const std::string& where, const std::string& got,
                                const std::string& hint = "") {
  throw Error(
      {.what = "the schema can't be kept exactly", .where = where, .got = got, .hint = hint});
}

[[noreturn]] void refuse_required(const std::string& where, const std::string& name) {
  throw Error({.what = "no object satisfies the schema",
               .where = where,
               .got = concat("'required' names \"", name, "\", which isn't allowed")});
}

bool satisfies(const OrderedJson& schema, const std::string& name, const std::string& where) {
  return JsonSchema(schema, where).find_fault(OrderedJson(name)).empty();
}

void read_patterns(const OrderedJson& schema, ObjectParts& parts, const std::string& where) {
  if (!schema.contains("patternProperties") || schema["patternProperties"].empty()) return;
  const OrderedJson& patterns = schema["patternProperties"];
  if (patterns.size() > 1 || parts.rest || schema.contains("propertyNames")) {
    refuse_object(where,
                  concat("'patternProperties' ", patterns.size() > 1 ? "of more than one pattern"
                                                 : parts.rest        ? "beside additionalProperties"
                                                                     : "beside propertyNames"));
  }
  parts.key_pattern = patterns.begin().key();
  parts.rest = &patterns.begin().value();
  for (const ObjectMember& member : parts.members) {
    if (!satisfies({{"pattern", *parts.key_pattern}}, member.name, where)) continue;
    refuse_object(where,
                  concat("'patternProperties' that match the property \"", member.name, "\""),
                  "say in the property what the pattern says");
  }
}

void read_names(const OrderedJson& schema, ObjectParts& parts, const std::string& where) {
  if (!schema.contains("propertyNames")) return;
  const OrderedJson& names = schema["propertyNames"];
  if (parts.rest && !parts.members.empty()) {
    refuse_object(where, "'propertyNames' beside properties and additionalProperties");
  }
  if (parts.rest) parts.names = &names;
  std::erase_if(parts.members, [&](const ObjectMember& member) {
    if (satisfies(names, member.name, where)) return false;
    if (member.is_required) refuse_required(where, member.name);
    return true;
  });
}

// Names that are required without being properties.
void add_required(const OrderedJson& schema, ObjectParts& parts, const std::string& where) {
  for (const OrderedJson& one : schema.value("required", OrderedJson::array())) {
    const std::string name = one;
    const auto found =
        std::find_if(parts.members.begin(), parts.members.end(),
                     [&](const ObjectMember& member) { return member.name == name; });
    if (found != parts.members.end()) {
      found->is_required = true;
      continue;
    }
    const bool is_forbidden = schema.value("properties", OrderedJson::object()).contains(name) ||
                              (schema.contains("additionalProperties") && !parts.rest);
    if (is_forbidden) refuse_required(where, name);
    if (schema.contains("patternProperties") || schema.contains("propertyNames")) {
      refuse_object(where,
                    concat("'required' of \"", name, "\", which isn't among the properties"));
    }
    parts.members.push_back(
        {.name = name, .schema = parts.rest ? parts.rest : &any_value(), .is_required = true});
  }
}

void read_counts(const OrderedJson& schema, ObjectParts& parts, const std::string& where) {
  parts.least = schema.value("minProperties", std::int64_t{0});
  parts.most = schema.value("maxProperties", std::int64_t{-1});
  const auto required = std::count_if(parts.members.begin(), parts.members.end(),
                                      [](const ObjectMember& one) { return one.is_required; });
  // Others may have one name twice, and then count once.
  if (parts.rest && parts.least > std::max<std::int64_t>(required, 1)) {
    refuse_object(where, "'minProperties' of properties without names");
  }
  if (parts.least <= required) parts.least = 0;
  const bool is_counted = parts.least > 0 || parts.most >= 0;
  if (is_counted && std::ssize(parts.members) > kMostCounted) {
    refuse_object(where, concat("a count of more than ", kMostCounted, " properties"));
  }
}

// Writes what follows behind the members that were decided, from the last to the first.
class MemberWriter {
 public:
  MemberWriter(const ObjectParts& parts, GrammarRules& rules)
      : parts_(parts), rules_(rules), comma_(concat("\",\" ", rules.space(), " ")) {}

  // What may follow when the next member is `index` and `count` are there. Nothing: no object.
  std::optional<std::string> tail(std::size_t index, std::int64_t count) {
    const auto key = std::pair(index, count);
    if (const auto known = tails_.find(key); known != tails_.end()) return known->second;
    const auto text = index == parts_.members.size() ? others(count) : write_tail(index, count);
    return tails_[key] = text;
  }

  std::optional<std::string> all() {
    std::vector<std::string> choices;
    bool may_be_empty = true;
    for (std::size_t i = 0; i < parts_.members.size() && may_be_empty; ++i) {
      const ObjectMember& member = parts_.members[i];
      may_be_empty = !member.is_required;
      if (parts_.most == 0) continue;
      if (const auto rest = tail(i + 1, next(0))) choices.push_back(member.grammar + *rest);
    }
    if (may_be_empty && parts_.rest && parts_.most != 0) {
      if (const auto rest = others(next(0))) choices.push_back(parts_.rest_grammar + *rest);
    }
    may_be_empty = may_be_empty && parts_.least == 0;
    if (choices.empty()) return may_be_empty ? std::optional<std::string>("") : std::nullopt;
    return concat("((", join(choices, " | "), ") ", rules_.space(), ")", may_be_empty ? "? " : " ");
  }

 private:
  bool counts() const { return parts_.least > 0 || parts_.most >= 0; }
  std::int64_t next(std::int64_t count) const { return counts() ? count + 1 : 0; }

  std::optional<std::string> others(std::int64_t count) const {
    const std::int64_t least = std::max<std::int64_t>(parts_.least - count, 0);
    if (parts_.most >= 0 && count > parts_.most) return std::nullopt;
    if (!parts_.rest) return least > 0 ? std::nullopt : std::optional<std::string>("");
    if (parts_.most >= 0 && parts_.most == count) return "";
    return concat(rules_.add(concat("(", comma_, parts_.rest_grammar, "){", least, ",",
                                    parts_.most < 0 ? "" : concat(parts_.most - count), "}")),
                  " ");
  }

  std::optional<std::string> write_tail(std::size_t index, std::int64_t count) {
    const ObjectMember& member = parts_.members[index];
    std::vector<std::string> choices;
    if (const auto rest = tail(index + 1, next(count))) {
      choices.push_back(concat(comma_, member.grammar, *rest));
    }
    if (!member.is_required) {
      if (const auto rest = tail(index + 1, count))
        choices.push_back(rest->empty() ? "\"\"" : *rest);
    }
    if (choices.empty()) return std::nullopt;
    return concat(rules_.add(join(choices, " | ")), " ");
  }

  const ObjectParts& parts_;
  GrammarRules& rules_;
  std::string comma_;
  std::map<std::pair<std::size_t, std::int64_t>, std::optional<std::string>> tails_;
};

struct NameNode {
  bool is_name = false;
  std::map<char32_t, NameNode> children;
};

// What follows behind the letters that led here, with the quote at the end.
std::string write_other(const NameNode& node, GrammarRules& rules) {
  std::vector<std::string> choices;
  if (!node.is_name) choices.emplace_back("\"\\\"\"");
  CodePoints taken;
  for (const auto& [letter, child] : node.children) {
    taken.add(letter, letter);
    choices.push_back(concat(CodePoints{{letter, letter}}.to_grammar(/*in_json=*/true), " ",
                             write_other(child, rules)));
  }
  choices.push_back(concat(taken.complement().to_grammar(/*in_json=*/true), " ", rules.character(),
                           "* \"\\\"\""));
  return rules.add(join(choices, " | "));
}

}  // namespace

ObjectParts read_object(const OrderedJson& schema, const std::string& where) {
  ObjectParts parts;
  if (schema.contains("properties")) {
    for (const auto& [name, one] : schema["properties"].items()) {
      if (one != false) parts.members.push_back({.name = name, .schema = &one});
    }
  }
  if (schema.contains("additionalProperties") && schema["additionalProperties"] != false) {
    parts.rest = &schema["additionalProperties"];
  }
  read_patterns(schema, parts, where);
  add_required(schema, parts, where);
  read_names(schema, parts, where);
  read_counts(schema, parts, where);
  return parts;
}

std::string write_members(const ObjectParts& parts, GrammarRules& rules, const std::string& where) {
  if (const auto text = MemberWriter(parts, rules).all()) return *text;
  throw Error({.what = "no object satisfies the schema",
               .where = where,
               .got = "the number of its properties"});
}

std::string other_keys(const ObjectParts& parts, GrammarRules& rules) {
  NameNode root;
  for (const ObjectMember& member : parts.members) {
    NameNode* node = &root;
    for (std::size_t at = 0; at < member.name.size();) {
      node = &node->children[next_code_point(member.name, at)];
    }
    node->is_name = true;
  }
  return concat("\"\\\"\" ", write_other(root, rules));
}

}  // namespace vlm::infer
