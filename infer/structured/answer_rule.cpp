#include "infer/structured/answer_rule.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

using RuleKind = AnswerRule::Kind;

[[noreturn]] void refuse_rule(const std::string& where, const OrderedJson& got,
                              const std::string& wanted) {
  throw Error(
      {.what = "unsupported value", .where = where, .got = describe(Json(got)), .wanted = wanted});
}

// Rows keep numbers as they were written (vlm/core/json.h); the order of members stays.
void make_numbers_plain(OrderedJson& value) {
  if (value.is_binary()) value = OrderedJson(plain_numbers(Json(value)));
  if (!value.is_structured()) return;
  for (OrderedJson& part : value) make_numbers_plain(part);
}

AnswerRule to_schema_rule(OrderedJson schema, const std::string& where) {
  if (!schema.is_object() && !schema.is_boolean()) refuse_rule(where, schema, "a JSON schema");
  make_numbers_plain(schema);
  return {.kind = RuleKind::kJsonSchema, .text = schema.dump()};
}

}  // namespace

std::optional<AnswerRule> read_response_format(const OrderedJson& value, const std::string& where) {
  constexpr const char* kWanted =
      "{\"type\": \"text\"}, {\"type\": \"json_object\"} or {\"type\": \"json_schema\", "
      "\"json_schema\": {\"schema\": …}}";
  const auto type = value.is_object() ? value.find("type") : value.end();
  if (!value.is_object() || type == value.end()) refuse_rule(where, value, kWanted);
  if (*type == "text") return std::nullopt;
  if (*type == "json_object") return AnswerRule{.kind = RuleKind::kJsonObject};
  if (*type != "json_schema") refuse_rule(where + ".type", *type, kWanted);
  // Some programs write the schema beside the type.
  if (value.contains("schema")) return to_schema_rule(value["schema"], where + ".schema");
  const std::string inside = where + ".json_schema";
  if (!value.contains("json_schema") || !value["json_schema"].is_object()) {
    refuse_rule(inside, value.value("json_schema", OrderedJson()), "{\"name\": …, \"schema\": …}");
  }
  const OrderedJson& named = value["json_schema"];
  if (!named.contains("schema")) refuse_rule(inside + ".schema", OrderedJson(), "a JSON schema");
  return to_schema_rule(named["schema"], inside + ".schema");
}

AnswerRule read_structured_outputs(const OrderedJson& value, const std::string& where) {
  std::optional<AnswerRule> rule;
  const auto set = [&](AnswerRule one) {
    if (rule) refuse_rule(where, value, "exactly one of json, json_object, regex and grammar");
    rule = std::move(one);
  };
  const OrderedJson members = value.is_object() ? value : OrderedJson::object();
  for (const auto& [key, member] : members.items()) {
    const std::string inside = concat(where, ".", key);
    if (member.is_null()) continue;
    if (key == "json") {
      set(to_schema_rule(
          member.is_string() ? parse_ordered_json(member.get<std::string>(), inside) : member,
          inside));
    } else if (key == "json_object") {
      if (member == true) set({.kind = RuleKind::kJsonObject});
      if (!member.is_boolean()) refuse_rule(inside, member, "true or false");
    } else if (key == "regex" || key == "grammar") {
      if (!member.is_string()) refuse_rule(inside, member, "a string");
      set({.kind = key == "regex" ? RuleKind::kRegex : RuleKind::kGrammar, .text = member});
    } else {
      throw Error({.what = "unsupported kind of structured output",
                   .where = where,
                   .got = key,
                   .wanted = "json, json_object, regex or grammar"});
    }
  }
  if (!rule) refuse_rule(where, value, "exactly one of json, json_object, regex and grammar");
  return *rule;
}

bool is_rule_name(const std::string& name) {
  return name == kRuleNames[0] || name == kRuleNames[1];
}

std::optional<AnswerRule> read_rule(const std::string& name, const OrderedJson& value,
                                    const std::string& where) {
  const OrderedJson rule =
      value.is_string() ? parse_ordered_json(value.get<std::string>(), where) : value;
  if (name == kRuleNames[0]) return read_response_format(rule, where);
  return read_structured_outputs(rule, where);
}

OrderedJson describe_rule(const AnswerRule& rule) {
  switch (rule.kind) {
    case RuleKind::kJsonSchema:
      return {{"json", OrderedJson::parse(rule.text)}};
    case RuleKind::kJsonObject:
      return {{"json_object", true}};
    case RuleKind::kRegex:
      return {{"regex", rule.text}};
    default:
      return {{"grammar", rule.text}};
  }
}

}  // namespace vlm::infer
