// Rules as clients and rows say them, and what is read from answers.
#include "infer/structured/answer_rule.h"

#include <nlohmann/json.hpp>

#include "infer/structured/answer_value.h"
#include "tests/support/catch.h"
#include "tests/support/thrown.h"

namespace vlm::infer {
namespace {

using Kind = AnswerRule::Kind;

OrderedJson parse(const std::string& text) {
  return parse_ordered_json(text, "test", Numbers::kAsWritten);
}

TEST_CASE("a response_format is text, an object, or a schema in its own order") {
  const auto read = [](const std::string& text) {
    return read_response_format(parse(text), "response_format");
  };
  CHECK_FALSE(read(R"({"type": "text"})"));
  CHECK(read(R"({"type": "json_object"})") == AnswerRule{Kind::kJsonObject});
  const AnswerRule schema{Kind::kJsonSchema, R"({"b":{"minimum":1.5},"a":true})"};
  CHECK(read(R"({"type": "json_schema", "json_schema": {"name": "n", "strict": true,
                 "schema": {"b": {"minimum": 1.50}, "a": true}}})") == schema);
  CHECK(read(R"({"type": "json_schema", "schema": {"b": {"minimum": 1.5}, "a": true}})") == schema);
  CHECK(read_rule("response_format", R"({"type": "json_object"})", "x") ==
        AnswerRule{Kind::kJsonObject});
  const auto refused = [&](const std::string& text) { return thrown_by([&] { read(text); }); };
  CHECK_THAT(refused(R"("json")"), Contains("response_format: unsupported value: got string"));
  CHECK_THAT(refused(R"({"type": "xml"})"), Contains("response_format.type: unsupported value"));
  CHECK_THAT(refused(R"({"type": "json_schema"})"),
             Contains("response_format.json_schema: unsupported value"));
  CHECK_THAT(refused(R"({"type": "json_schema", "json_schema": {"name": "n"}})"),
             Contains("response_format.json_schema.schema: unsupported value"));
  CHECK_THAT(refused(R"({"type": "json_schema", "schema": []})"), Contains("wanted a JSON schema"));
}

TEST_CASE("structured_outputs are exactly one rule") {
  const auto read = [](const std::string& text) {
    return read_structured_outputs(parse(text), "structured_outputs");
  };
  CHECK(read(R"({"json": {"type": "null"}})") ==
        AnswerRule{Kind::kJsonSchema, R"({"type":"null"})"});
  CHECK(read(R"({"json": "{\"type\": \"null\"}"})") ==
        AnswerRule{Kind::kJsonSchema, R"({"type":"null"})"});
  CHECK(read(R"({"json_object": true, "regex": null})") == AnswerRule{Kind::kJsonObject});
  CHECK(read(R"({"regex": "a+"})") == AnswerRule{Kind::kRegex, "a+"});
  CHECK(read(R"({"grammar": "root ::= \"a\""})") == AnswerRule{Kind::kGrammar, "root ::= \"a\""});
  const auto refused = [&](const std::string& text) { return thrown_by([&] { read(text); }); };
  CHECK_THAT(refused("{}"), Contains("exactly one of json, json_object, regex and grammar"));
  CHECK_THAT(refused(R"({"regex": "a", "json_object": true})"), Contains("exactly one"));
  CHECK_THAT(refused(R"({"regex": 3})"), Contains("structured_outputs.regex: unsupported value"));
  CHECK_THAT(refused(R"({"choice": ["a"]})"),
             Contains("unsupported kind of structured output: got choice"));
  CHECK_THAT(refused("[]"), Contains("exactly one"));
}

TEST_CASE("a described rule reads back") {
  for (const AnswerRule& rule :
       {AnswerRule{Kind::kJsonObject}, AnswerRule{Kind::kJsonSchema, R"({"b":1,"a":2})"},
        AnswerRule{Kind::kRegex, "a"}, AnswerRule{Kind::kGrammar, "root ::= \"a\""}}) {
    CHECK(read_structured_outputs(describe_rule(rule), "x") == rule);
  }
}

TEST_CASE("an answer is read as its value, or has a fault") {
  const AnswerRule rule{Kind::kJsonSchema, R"({"properties": {"n": {"type": "integer"}}})"};
  const AnswerValue good = read_answer(rule, R"({"n": 3})", "stop");
  CHECK(good.value == OrderedJson({{"n", 3}}));
  CHECK(good.fault.empty());
  const auto fault = [&](const std::string& text, const std::string& reason) {
    const AnswerValue read = read_answer(rule, text, reason);
    CHECK(read.value.is_null());
    return read.fault;
  };
  CHECK(fault(R"({"n")", "length") ==
        "the answer was cut before it was whole (--max-new-tokens allows longer ones)");
  CHECK(fault(R"({"n")", "stop") == "the answer isn't JSON");
  CHECK(fault(R"({"n": "x"})", "stop") ==
        "the answer doesn't satisfy its schema: got /n: not of type \"integer\"");
  CHECK(fault("{", "interrupted") == "the answer was interrupted");
  CHECK(fault("{", "stuck") == "the model's vocabulary can't spell the answer");
  CHECK(read_answer({Kind::kJsonObject}, "[]", "stop").fault ==
        "the answer doesn't satisfy its schema: got no object");
  CHECK(read_answer({Kind::kRegex, "a"}, "a", "stop").fault.empty());
  CHECK(read_answer(rule, R"({"n": 1, "n": 2})", "stop").value["n"] == 2);  // the last counts
}

TEST_CASE("the properties at the top are those of references and merged schemas, too") {
  const AnswerRule rule{Kind::kJsonSchema,
                        R"({"$defs": {"x": {"properties": {"b": true, "a": true}}},
                            "$ref": "#/$defs/x", "properties": {"c": true, "a": true},
                            "allOf": [{"properties": {"d": {}}}]})"};
  CHECK(property_names(rule) == std::vector<std::string>{"b", "a", "c", "d"});
  CHECK(property_names({Kind::kRegex, "a"}).empty());
}

}  // namespace
}  // namespace vlm::infer
