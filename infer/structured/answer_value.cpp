#include "infer/structured/answer_value.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/schema/json_schema.h"

namespace vlm::infer {
namespace {

constexpr int kMostMerged = 32;  // references and allOf that lead to properties

std::string describe_fault(const std::string& finish_reason) {
  if (finish_reason == "length") return "the answer was cut before it was whole";
  if (finish_reason == "interrupted") return "the answer was interrupted";
  return "the model's vocabulary can't spell the answer";
}

std::string fault_of(const std::string& what, const std::string& got, const std::string& hint) {
  return Error({.what = what, .got = got, .hint = hint}).what();
}

void add_names(const OrderedJson& root, const OrderedJson& schema, int level,
               std::vector<std::string>& names) {
  if (!schema.is_object() || level > kMostMerged) return;
  if (schema.contains("$ref") && schema["$ref"].is_string()) {
    const OrderedJson* target = find_reference(root, schema["$ref"].get<std::string>());
    if (target) add_names(root, *target, level + 1, names);
  }
  if (schema.contains("properties") && schema["properties"].is_object()) {
    for (const auto& [name, part] : schema["properties"].items()) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  if (!schema.contains("allOf") || !schema["allOf"].is_array()) return;
  for (const OrderedJson& part : schema["allOf"]) add_names(root, part, level + 1, names);
}

}  // namespace

AnswerValue read_answer(const AnswerRule& rule, const std::string& text,
                        const std::string& finish_reason) {
  if (finish_reason != "stop") {
    const bool is_cut = finish_reason == "length";
    return {.fault = fault_of(describe_fault(finish_reason), "",
                              is_cut ? "--max-new-tokens allows longer ones" : "")};
  }
  if (!rule.is_json()) return {};
  OrderedJson value = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return {.fault = fault_of("the answer isn't JSON", "", "")};
  std::string fault;
  if (rule.kind == AnswerRule::Kind::kJsonSchema) {
    fault = JsonSchema(OrderedJson::parse(rule.text), "schema").find_fault(value);
  } else if (!value.is_object()) {
    fault = "no object";
  }
  if (fault.empty()) return {.value = std::move(value)};
  return {.fault = fault_of("the answer doesn't satisfy its schema", fault, "")};
}

std::vector<std::string> property_names(const AnswerRule& rule) {
  std::vector<std::string> names;
  if (rule.kind != AnswerRule::Kind::kJsonSchema) return names;
  const OrderedJson schema = parse_ordered_json(rule.text, "schema");
  add_names(schema, schema, 0, names);
  return names;
}

}  // namespace vlm::infer
