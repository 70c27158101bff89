#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "infer/server/api/answer_fields.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

using Kind = Constraint::Kind;

constexpr std::size_t kMostPattern = 64 << 10;

// {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}, or the schema beside type.
Constraint read_schema(BodyReader& format) {
  Constraint constraint{.kind = Kind::kJsonSchema, .param = format.path("json_schema.schema")};
  const OrderedJson* schema = nullptr;
  if (const OrderedJson* holder = format.object("json_schema")) {
    schema = BodyReader(*holder, format.path("json_schema")).object("schema");
  } else {
    schema = format.object("schema");
    constraint.param = format.path("schema");
  }
  if (!schema) throw missing_value(constraint.param, "a JSON schema");
  constraint.text = schema->dump();
  return constraint;
}

Constraint read_choices(BodyReader& outputs, const ApiLimits& limits) {
  Constraint constraint{.kind = Kind::kChoice, .param = outputs.path("choice")};
  const auto most = static_cast<std::size_t>(limits.max_choices);
  constraint.choices = outputs.texts("choice", most);
  const std::set<std::string> different(constraint.choices.begin(), constraint.choices.end());
  if (different.size() < 2 || different.size() != constraint.choices.size()) {
    throw bad_value(constraint.param, *outputs.find("choice"), "two or more texts, all different");
  }
  return constraint;
}

// vLLM's extension.
Constraint read_outputs(const OrderedJson& value, const std::string& path,
                        const ApiLimits& limits) {
  BodyReader outputs(value, path);
  std::vector<std::string> given;
  for (const char* name : {"json", "json_object", "choice", "regex", "grammar"}) {
    if (outputs.find(name)) given.emplace_back(name);
  }
  if (given.size() != 1) {
    throw bad_value(path, concat(given.size(), " kinds"),
                    "one of json, json_object, choice, regex, grammar");
  }
  if (given[0] == "choice") return read_choices(outputs, limits);
  if (given[0] == "json_object") {
    if (!*outputs.boolean("json_object")) return {};
    return {.kind = Kind::kJsonObject, .param = outputs.path("json_object")};
  }
  if (given[0] == "json") {
    const OrderedJson& schema = *outputs.find("json");
    const std::string text =
        schema.is_string() ? schema.get<std::string>() : outputs.object("json")->dump();
    return {.kind = Kind::kJsonSchema, .param = outputs.path("json"), .text = text};
  }
  return {.kind = given[0] == "regex" ? Kind::kRegex : Kind::kGrammar,
          .param = outputs.path(given[0]),
          .text = *outputs.text(given[0], kMostPattern)};
}

}  // namespace

Constraint read_format(const OrderedJson& value, const std::string& path) {
  BodyReader format(value, path);
  const std::string type = format.text("type", 64).value_or("");
  if (type == "text") return {};
  if (type == "json_object") {
    if (format.find("schema")) return read_schema(format);  // llama.cpp's form
    return {.kind = Kind::kJsonObject, .param = path};
  }
  if (type == "json_schema") return read_schema(format);
  throw bad_value(format.path("type"), type, "text, json_object or json_schema");
}

Constraint read_constraint(BodyReader& body, const ApiLimits& limits) {
  Constraint constraint;
  if (const OrderedJson* format = body.find("response_format")) {
    constraint = read_format(*format, body.path("response_format"));
  }
  const OrderedJson* outputs = body.find("structured_outputs");
  if (!outputs) return constraint;
  if (constraint.kind != Kind::kNone) {
    throw bad_value(body.path("structured_outputs"), *outputs,
                    "response_format or structured_outputs, not both");
  }
  return read_outputs(*outputs, body.path("structured_outputs"), limits);
}

}  // namespace vlm::infer
