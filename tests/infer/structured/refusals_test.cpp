// What the guard says of schemas, patterns and grammars that can't be kept.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "infer/structured/answer_value.h"
#include "infer/structured/rule_grammar.h"
#include "tests/infer/structured/rules.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

std::string nested_schema(int depth) {
  std::string schema = R"({"type": "null"})";
  for (int i = 0; i < depth; ++i) schema = R"({"properties": {"a": )" + schema + "}}";
  return schema;
}

TEST_CASE("a keyword that can't be kept is refused, with its place") {
  const auto at = [](const std::string& keyword) {
    return refusal_of(R"({"properties": {"a/b": {)" + keyword + "}}}");
  };
  const std::string head = "here: /properties/a~1b: the schema can't be kept exactly: got ";
  CHECK(at(R"("not": {"type": "null"})") ==
        head + "'not' (an enum of what is allowed often says the same)");
  CHECK(at(R"("if": {"type": "null"}, "then": {}, "else": {})") ==
        head + "'if' (anyOf of the cases, each with its const, often says the same)");
  CHECK(at(R"("contains": {"type": "null"})") ==
        head + "'contains' (items says what every item is)");
  CHECK(at(R"("dependentRequired": {"x": ["y"]})") == head + "'dependentRequired'");
  CHECK(at(R"("dependentSchemas": {"x": {}})") == head + "'dependentSchemas'");
  CHECK(at(R"("dependencies": {"x": ["y"]})") == head + "'dependencies'");
  CHECK(at(R"("uniqueItems": true)") == head + "'uniqueItems'");
  CHECK(at(R"("unevaluatedProperties": {"type": "null"})") == head + "'unevaluatedProperties'");
  CHECK(at(R"("nullable": true, "type": "string")") ==
        head + "'nullable' (\"type\": [\"string\", \"null\"] says so)");
  CHECK(at(R"("type": "number", "multipleOf": 0.5)") ==
        head + "'multipleOf' of numbers (\"type\": \"integer\" with minimum and maximum)");
  CHECK(at(R"("pattern": "a", "maxLength": 3)") ==
        head + "'pattern' beside a length (a pattern with counts says both)");
  CHECK(at(R"("format": "date", "minLength": 3)") ==
        head + "'format' beside a length (a pattern with counts says both)");
  CHECK_THAT(at(R"("type": "string", "format": "iri")"),
             Contains("got 'format' iri, wanted date, date-time, duration"));
  CHECK_THAT(at(R"("oneOf": [{"type": "integer"}, {"type": "number"}])"),
             Contains("/oneOf: the schema can't be kept exactly: got 'oneOf', whose 0 and 1 may "
                      "both hold"));
  CHECK_THAT(at(R"("patternProperties": {"a": {}, "b": {}})"),
             Contains("of more than one pattern"));
  CHECK_THAT(at(R"("patternProperties": {"a": {}}, "additionalProperties": {})"),
             Contains("'patternProperties' beside additionalProperties"));
  CHECK_THAT(at(R"("patternProperties": {"^x": {}}, "properties": {"xy": {}})"),
             Contains("'patternProperties' that match the property \"xy\""));
  CHECK_THAT(at(R"("propertyNames": {"maxLength": 2}, "properties": {"x": {}},
                   "additionalProperties": true)"),
             Contains("'propertyNames' beside properties and additionalProperties"));
  CHECK_THAT(at(R"("additionalProperties": true, "minProperties": 3)"),
             Contains("'minProperties' of properties without names"));
  CHECK_THAT(at(R"("allOf": [{"pattern": "a"}, {"pattern": "b"}])"),
             Contains("'pattern' in two schemas for the same value (say it in one)"));
  CHECK_THAT(at(R"("allOf": [{"properties": {"x": {}}, "additionalProperties": false},
                             {"properties": {"y": {}}}])"),
             Contains("'additionalProperties' in two schemas for the same value"));
  CHECK_THAT(at(R"("$dynamicRef": "#a")"), Contains("unsupported keyword: got $dynamicRef"));
  CHECK_THAT(at(R"("requred": ["x"])"),
             Contains("unknown keyword: got 'requred' (did you mean 'required'?)"));
}

TEST_CASE("keywords that say nothing of a value pass") {
  CHECK(refusal_of(R"({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x",
                       "title": "t", "description": "d", "default": 1, "examples": [1],
                       "x-order": 3, "type": "integer", "format": "int32"})") == "");
  CHECK(refusal_of(R"({"uniqueItems": true, "maxItems": 1})") == "");
}

TEST_CASE("a schema that no value satisfies is refused") {
  CHECK(refusal_of("false") == "here: /: no value satisfies the schema: got false");
  CHECK_THAT(refusal_of(R"({"enum": ["a"], "type": "integer"})"),
             Contains("no listed value satisfies the schema"));
  CHECK_THAT(refusal_of(R"({"type": "integer", "minimum": 3, "maximum": 2})"),
             Contains("no number meets the bounds"));
  CHECK_THAT(refusal_of(R"({"type": "number", "minimum": 1, "exclusiveMaximum": 1})"),
             Contains("no number meets the bounds"));
  CHECK_THAT(refusal_of(R"({"minLength": 3, "maxLength": 2})"),
             Contains("no string is so long and so short"));
  CHECK_THAT(refusal_of(R"({"type": "array", "minItems": 3, "maxItems": 2})"),
             Contains("no list is so long and so short"));
  CHECK_THAT(refusal_of(R"({"properties": {"a": {}}, "minProperties": 2})"),
             Contains("no object satisfies the schema: got the number of its properties"));
  CHECK_THAT(refusal_of(R"({"properties": {"a": false}, "required": ["a"]})"),
             Contains("'required' names \"a\", which isn't allowed"));
  CHECK_THAT(refusal_of(R"({"allOf": [{"type": "string"}, {"type": "null"}]})"),
             Contains("no value satisfies the schema: got 'type'"));
}

TEST_CASE("what is no schema is refused") {
  CHECK_THAT(refusal_of("[1]"), Contains("here: /: not a schema: got array"));
  CHECK_THAT(refusal_of(R"({"type": "text"})"),
             Contains("here: /type: wrong value of a keyword: got string \"text\""));
  CHECK_THAT(refusal_of(R"({"properties": {"a": 3}})"),
             Contains("here: /properties/a: not a schema: got number 3"));
  CHECK_THAT(refusal_of(R"({"$ref": "#/$defs/x"})"),
             Contains("here: /$ref: the reference names nothing in this schema: got #/$defs/x"));
  CHECK_THAT(refusal_of(R"({"$ref": "https://example.org/x.json"})"),
             Contains("the reference names nothing in this schema"));
  CHECK_THAT(refusal_of(R"({"required": "a"})"), Contains("here: /required: wrong value"));
  CHECK_THAT(refusal_of(R"({"pattern": "("})"), Contains("here"));
}

TEST_CASE("a schema that would cost too much is refused") {
  CHECK(refusal_of(nested_schema(31)) == "");
  CHECK_THAT(refusal_of(nested_schema(32)), Contains("too many levels"));
  CHECK_THAT(refusal_of(nested_schema(90)), Contains("too many levels"));
  std::string list = "{\"enum\": [";
  for (int i = 0; i < 1001; ++i) list += std::to_string(i) + ",";
  CHECK_THAT(refusal_of(list + "0]}"), Contains("too many enum values"));
  std::string wide = R"({"properties": {"z": {}})";
  for (int i = 0; i < 401; ++i) wide.insert(16, concat("\"p", i, "\": {},"));
  CHECK_THAT(refusal_of(wide + "}"), Contains("too many properties"));
  CHECK_THAT(refusal_of("{\"title\": \"" + std::string(70'000, 'x') + "\"}"),
             Contains("the schema is too large: got 70013 bytes, wanted at most 65536"));
  std::string branches = "{}";
  for (int i = 0; i < 14; ++i) branches = R"({"anyOf": [)" + branches + "," + branches + "]}";
  CHECK_THAT(refusal_of(branches.substr(0, 60'000)), Contains("here"));
  CHECK_THAT(refusal_of(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"},
                                                           "b": {"$ref": "#/$defs/a"}}})"),
             Contains("the references lead in a circle"));
  CHECK_THAT(refusal_of(R"({"allOf": [{"$ref": "#"}]})"), Contains("too many levels"));
  CHECK_THAT(refusal_of(R"({"maxLength": 100001})"), Contains("too many characters in a string"));
  CHECK_THAT(refusal_of(R"({"type": "array", "minItems": 10001})"),
             Contains("too many items in a list"));
  CHECK_THAT(refusal_of(R"({"pattern": "([a-z]{1,99}){1,99}"})"),
             Contains("the pattern's counts are too large"));
}

TEST_CASE("damaged schemas and patterns give a grammar or an Error, and nothing else") {
  std::mt19937 random(5);
  const std::filesystem::path corpus = std::filesystem::path(VLM_SOURCE_DIR) / "tests/fuzz/corpus";
  const std::string pieces[] = {"{",
                                "}",
                                "[",
                                "]",
                                "\"",
                                ",",
                                ":",
                                "1e9",
                                "-1",
                                "null",
                                "{2,}",
                                "\"$ref\":\"#\"",
                                "\"allOf\":[{}]",
                                "\\",
                                "(",
                                ")",
                                "\xff"};
  int grammars = 0, errors = 0;
  for (const auto& file : std::filesystem::directory_iterator(corpus / "rules")) {
    std::ifstream in(file.path(), std::ios::binary);
    const std::string whole{std::istreambuf_iterator<char>(in), {}};
    for (int round = 0; round < 400; ++round) {
      std::string text = whole.substr(1);
      for (std::size_t change = random() % 4; change > 0; --change) {
        const std::size_t at = random() % (text.size() + 1);
        if (random() % 2 == 0) text.erase(at, random() % 6);
        if (random() % 2 == 0) text.insert(std::min(at, text.size()), pieces[random() % 17]);
      }
      const AnswerRule rule{.kind = whole[0] == 0   ? AnswerRule::Kind::kJsonSchema
                                    : whole[0] == 1 ? AnswerRule::Kind::kRegex
                                                    : AnswerRule::Kind::kGrammar,
                            .text = text};
      try {
        to_grammar(rule, "here");
        property_names(rule);
        ++grammars;
      } catch (const Error&) {
        ++errors;
      }
    }
  }
  CHECK(grammars > 500);
  CHECK(errors > 500);
}

}  // namespace
}  // namespace vlm::infer
