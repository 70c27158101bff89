// Whether values satisfy schemas.
#include "vlm/core/schema/json_schema.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/thrown.h"

namespace vlm {
namespace {

std::string fault(const std::string& schema, const std::string& value) {
  return JsonSchema(OrderedJson::parse(schema), "schema").find_fault(OrderedJson::parse(value));
}

std::string refusal(const std::string& schema) {
  return thrown_by([&] { JsonSchema(OrderedJson::parse(schema), "schema"); });
}

TEST_CASE("each keyword tells what a value lacks, and where") {
  struct Case {
    const char *schema, *right, *wrong, *fault;
  };
  const Case cases[] = {
      {"true", "1", "", ""},
      {R"({"type": "integer"})", "1.0", "1.5", "/: not of type \"integer\""},
      {R"({"type": ["null", "string"]})", "null", "[]", "/: not of type [\"null\",\"string\"]"},
      {R"({"const": {"a": 1, "b": 2}})", R"({"b": 2, "a": 1.0})", R"({"a": 1})",
       "/: not the constant"},
      {R"({"enum": [1, "a"]})", "\"a\"", "\"b\"", "/: not one of the enum"},
      {R"({"minimum": 2})", "2", "1.9", "/: below the minimum"},
      {R"({"exclusiveMinimum": 2})", "\"x\"", "2", "/: below the minimum"},
      {R"({"maximum": 2})", "2", "3", "/: above the maximum"},
      {R"({"exclusiveMaximum": 2})", "1", "2", "/: above the maximum"},
      {R"({"multipleOf": 0.01})", "0.07", "0.075", "/: not a multiple of 0.01"},
      {R"({"minLength": 2})", "\"äö\"", "\"ä\"", "/: below minLength 2"},
      {R"({"maxLength": 2})", "\"äö\"", "\"äöü\"", "/: above maxLength 2"},
      {R"({"pattern": "^[\\u0041-C]$"})", "\"B\"", "\"B\\n\"", "/: doesn't match the pattern"},
      {R"({"minItems": 1})", "[1]", "[]", "/: below minItems 1"},
      {R"({"maxItems": 1})", "[1]", "[1, 2]", "/: above maxItems 1"},
      {R"({"uniqueItems": true})", "[1, true]", "[1, 1.0]", "/: items aren't unique"},
      {R"({"items": {"type": "null"}})", "[null]", "[null, 1]", "/1: not of type \"null\""},
      {R"({"prefixItems": [true, {"type": "null"}], "items": false})", "[1, null]", "[1, null, 2]",
       "/2: no value is allowed"},
      {R"({"contains": {"type": "null"}, "maxContains": 1})", "[1, null]", "[null, null]",
       "/: doesn't contain what it must"},
      {R"({"contains": {"type": "null"}})", "[null]", "[1]", "/: doesn't contain what it must"},
      {R"({"properties": {"a/b": {"type": "null"}}})", R"({"a/b": null})", R"({"a/b": 1})",
       "/a~1b: not of type \"null\""},
      {R"({"required": ["a"]})", R"({"a": 1})", "{}", "/: no \"a\""},
      {R"({"minProperties": 1})", R"({"a": 1})", "{}", "/: below minProperties 1"},
      {R"({"maxProperties": 0})", "{}", R"({"a": 1})", "/: above maxProperties 0"},
      {R"({"properties": {"a": {}}, "patternProperties": {"^b": {}}, "additionalProperties": false})",
       R"({"a": 1, "bc": 2})", R"({"c": 1})", "/c: no value is allowed"},
      {R"({"properties": {"a": {}}, "unevaluatedProperties": false})", R"({"a": 1})", R"({"c": 1})",
       "/c: no value is allowed"},
      {R"({"propertyNames": {"maxLength": 1}})", R"({"a": 1})", R"({"ab": 1})",
       "/ab: above maxLength 1"},
      {R"({"dependentRequired": {"a": ["b"]}})", R"({"b": 1})", R"({"a": 1})", "/: no \"b\""},
      {R"({"dependentSchemas": {"a": {"maxProperties": 1}}})", R"({"a": 1})", R"({"a": 1, "b": 1})",
       "/: above maxProperties 1"},
      {R"({"allOf": [{"minimum": 1}, {"maximum": 2}]})", "1", "3", "/: above the maximum"},
      {R"({"anyOf": [{"minimum": 3}, {"maximum": 2}]})", "1", "2.5", "/: satisfies none of anyOf"},
      {R"({"oneOf": [{"minimum": 1}, {"minimum": 2}]})", "1", "2",
       "/: doesn't satisfy exactly one of oneOf"},
      {R"({"not": {"type": "null"}})", "1", "null", "/: satisfies what it must not"},
      {R"({"if": {"type": "null"}, "then": false, "else": {"minimum": 1}})", "1", "null",
       "/: no value is allowed"},
      {R"({"if": {"type": "null"}, "else": {"minimum": 1}})", "null", "0", "/: below the minimum"},
      {R"({"$ref": "#/$defs/a%25b~1c", "$defs": {"a%b/c": {"type": "null"}}})", "null", "1",
       "/: not of type \"null\""},
      {R"({"properties": {"next": {"$ref": "#"}}, "required": ["v"]})",
       R"({"v": 1, "next": {"v": 2}})", R"({"v": 1, "next": {}})", "/next: no \"v\""}};
  for (const Case& one : cases) {
    INFO(one.schema);
    CHECK(fault(one.schema, one.right) == "");
    if (*one.wrong) CHECK(fault(one.schema, one.wrong) == one.fault);
  }
}

TEST_CASE("what is no schema, or can't be followed, is refused") {
  CHECK(refusal("3") == "schema: /: not a schema: got number 3");
  CHECK_THAT(refusal(R"({"properties": {"a": {"minimum": "1"}}})"),
             Contains("schema: /properties/a/minimum: wrong value of a keyword: got string"));
  CHECK_THAT(refusal(R"({"minLength": -1})"), Contains("/minLength: wrong value"));
  CHECK_THAT(refusal(R"({"type": "int"})"), Contains("/type: wrong value"));
  CHECK_THAT(refusal(R"({"anyOf": []})"), Contains("/anyOf: wrong value"));
  CHECK_THAT(refusal(R"({"$ref": "#/nothing"})"), Contains("names nothing in this schema"));
  CHECK_THAT(refusal(R"({"$dynamicRef": "#x"})"), Contains("unsupported keyword: got $dynamicRef"));
  CHECK_THAT(refusal(R"({"allOf": [true], "unevaluatedProperties": false})"),
             Contains("unsupported beside keywords that apply other schemas"));
  CHECK_THAT(refusal(R"({"items": {"pattern": "["}})"),
             Contains("schema: /items/pattern: not a regular expression"));
  CHECK_THAT(thrown_by([] { fault(R"({"$ref": "#"})", "1"); }),
             Contains("the schema takes too many steps"));
}

}  // namespace
}  // namespace vlm
