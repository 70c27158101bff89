// Which texts a schema's grammar takes.
#include "tests/infer/structured/rules.h"

namespace vlm::infer {
namespace {

TEST_CASE("an object holds the named properties in their order and no others") {
  Rules rules;
  const std::string schema =
      R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"},
          "c": {"type": "null"}}, "required": ["b"]})";
  for (const char* text : {R"({"a":1,"b":true})", R"({"b":false})", R"({"b":true,"c":null})",
                           "{ \"a\": 10,\n\t\"b\": true }"}) {
    INFO(text);
    CHECK(rules.schema(schema, text) == "whole");
  }
  CHECK(rules.schema(schema, R"({"b":true)") == "part");
  CHECK(rules.schema(schema, R"({"a":1})") == "refused at 6");               // b is missing
  CHECK(rules.schema(schema, R"({"b":true,"a":1})") == "refused at 11");     // another order
  CHECK(rules.schema(schema, R"({"b":true,"d":1})") == "refused at 11");     // another name
  CHECK(rules.schema(schema, R"( {"b":true})") == "refused at 0");           // space before
  CHECK(rules.schema(schema, R"({"b":true} )") == "refused at 10");          // space behind
  CHECK(rules.schema(schema, R"({"b":         true})") == "refused at 13");  // nine spaces
  CHECK(rules.schema(schema, R"({"b" :true})") == "refused at 4");
}

TEST_CASE("an object has other properties where the schema says what they are") {
  Rules rules;
  const std::string open =
      R"({"properties": {"ab": {"type": "integer"}, "a\"c": true},
          "additionalProperties": {"type": "string"}})";
  CHECK(rules.schema(open, R"({"ab":1,"x":"y"})") == "whole");
  CHECK(rules.schema(open, R"({"a":"","abc":"","":""})") == "whole");
  CHECK(rules.schema(open, R"({"x":"y","ab":"z"})") == "refused at 12");
  CHECK(rules.schema(open, R"({"x":"y","a\"c":"z"})") == "refused at 14");
  CHECK(rules.schema(open, R"({"\u0061b":"z"})") == "refused at 3");  // one spelling only
  CHECK(rules.schema(open, R"({"x":1})") == "refused at 5");
  const std::string map = R"({"additionalProperties": {"type": "integer"}, "maxProperties": 2,
                              "minProperties": 1, "propertyNames": {"pattern": "^[a-z]+$"}})";
  CHECK(rules.schema(map, R"({"a":1,"b":2})") == "whole");
  CHECK(rules.schema(map, R"({})") == "refused at 1");
  CHECK(rules.schema(map, R"({"a":1,"b":2,)") == "refused at 12");
  CHECK(rules.schema(map, R"({"A":1})") == "refused at 2");
  const std::string patterns = R"({"patternProperties": {"^n_": {"type": "integer"}}})";
  CHECK(rules.schema(patterns, R"({"n_x":1})") == "whole");
  CHECK(rules.schema(patterns, R"({"m":1})") == "refused at 2");
}

TEST_CASE("the number of properties is kept") {
  Rules rules;
  const std::string schema =
      R"({"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
          "minProperties": 2, "maxProperties": 2})";
  CHECK(rules.schema(schema, R"({"a":null,"c":null})") == "whole");
  CHECK(rules.schema(schema, R"({"b":null,"c":null})") == "whole");
  CHECK(rules.schema(schema, R"({"c")") == "refused at 2");
  CHECK(rules.schema(schema, R"({"a":null,"b":null,)") == "refused at 18");
  CHECK(rules.schema(R"({"maxProperties": 0})", "{}") == "whole");
  CHECK(rules.schema(R"({"required": ["a"]})", R"({"a":[1,"x",{"y":null}]})") == "whole");
}

TEST_CASE("lists have their first items, the rest, and their length") {
  Rules rules;
  const std::string tuple = R"({"prefixItems": [{"type": "integer"}, {"type": "null"}],
                                "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3})";
  for (const char* text : {"[1]", "[1,null]", "[ 1, null, true ]"}) {
    INFO(text);
    CHECK(rules.schema(tuple, text) == "whole");
  }
  CHECK(rules.schema(tuple, "[]") == "refused at 1");
  CHECK(rules.schema(tuple, "[1,null,true,") == "refused at 12");
  CHECK(rules.schema(R"({"prefixItems": [{"type": "null"}]})", "[null,") == "refused at 5");
  const std::string list = R"({"items": {"type": "null"}, "minItems": 2})";
  CHECK(rules.schema(list, "[null,null,null]") == "whole");
  CHECK(rules.schema(list, "[null]") == "refused at 5");
  CHECK(rules.schema(R"({"type": "array"})", R"([1,{"a":[]},"x"])") == "whole");
  CHECK(rules.schema(R"({"items": false, "type": "array"})", "[]") == "whole");
}

TEST_CASE("strings have their length in characters, and one spelling each") {
  Rules rules;
  CHECK(rules.schema(R"({"minLength": 2, "maxLength": 3})", R"("äö")") == "whole");
  CHECK(rules.schema(R"({"minLength": 2, "maxLength": 3})", R"("\n\"")") == "whole");
  CHECK(rules.schema(R"({"minLength": 2, "maxLength": 3})", R"("a")") == "refused at 2");
  CHECK(rules.schema(R"({"maxLength": 3})", R"("abcd)") == "refused at 4");
  CHECK(rules.schema(R"({"type": "string"})", "\"\t\"") == "refused at 1");       // raw control
  CHECK(rules.schema(R"({"type": "string"})", R"("\u00e4")") == "refused at 2");  // no \u
  CHECK(rules.schema(R"({"type": "string"})", "\"\xed\xa0\x80\"") == "refused at 2");  // surrogate
  CHECK(rules.schema(R"({"maxLength": 100000})", R"("abc")") == "whole");
  CHECK(rules.schema(R"({"pattern": "^a"})", R"("abc")") == "whole");
  CHECK(rules.schema(R"({"pattern": "b"})", R"("abc")") == "whole");
  CHECK(rules.schema(R"({"pattern": "^[^a]$"})", R"("\"")") == "whole");
  CHECK(rules.schema(R"({"format": "date"})", R"("2024-02-29")") == "whole");
  CHECK(rules.schema(R"({"format": "date"})", R"("2023-02-29)") == "refused at 10");
  CHECK(rules.schema(R"({"format": "date-time"})", R"("2024-12-31T23:59:59Z")") == "whole");
  CHECK(rules.schema(R"({"format": "uuid"})", R"("123e4567-e89b-12d3-a456-426614174000")") ==
        "whole");
}

TEST_CASE("numbers are between their bounds") {
  Rules rules;
  const auto fits = [&](const std::string& schema, const std::string& text) {
    return rules.schema(schema, text) == "whole";
  };
  for (int n = -130; n <= 130; ++n) {
    INFO(n);
    const bool is_right = n >= -12 && n <= 107;
    CHECK(fits(R"({"type": "integer", "minimum": -12, "exclusiveMaximum": 107.5})",
               std::to_string(n)) == is_right);
    CHECK(fits(R"({"type": "integer", "exclusiveMinimum": 9, "maximum": 100})",
               std::to_string(n)) == (n > 9 && n <= 100));
    CHECK(fits(R"({"type": "integer", "minimum": -100, "maximum": 100, "multipleOf": 25})",
               std::to_string(n)) == (n >= -100 && n <= 100 && n % 25 == 0));
  }
  const std::string share = R"({"type": "number", "minimum": 0, "maximum": 1})";
  for (const char* text : {"0", "1", "0.5", "1.0", "0.999", "0.0"}) {
    INFO(text);
    CHECK(fits(share, text));
  }
  for (const char* text : {"1.01", "-0.1", "2", "01", "1.", "1e0", "-0"}) {
    INFO(text);
    CHECK_FALSE(fits(share, text));
  }
  const std::string open = R"({"exclusiveMinimum": -1.25, "exclusiveMaximum": 10.05})";
  for (const char* text : {"-1.249", "-1.2", "-1", "0", "0.3", "9.99", "10", "10.04", "10.0499"}) {
    INFO(text);
    CHECK(fits(open, text));
  }
  for (const char* text : {"-1.25", "-1.250", "-1.3", "-2", "10.05", "10.1", "11", "10.050"}) {
    INFO(text);
    CHECK_FALSE(fits(open, text));
  }
  CHECK(fits(R"({"type": "number", "minimum": 3.5})", "999999999999999999"));
  CHECK(fits(R"({"type": "number", "maximum": -0.5})", "-0.5"));
  CHECK(fits(R"({"type": "number"})", "-12.5e-3"));
  CHECK_FALSE(fits(R"({"type": "integer"})", "1234567890123456789"));  // 19 digits
}

TEST_CASE("branches, references and merged schemas keep what they say") {
  Rules rules;
  CHECK(rules.schema(R"({"anyOf": [{"type": "null"}, {"type": "integer"}]})", "12") == "whole");
  CHECK(rules.schema(R"({"type": ["string", "null"], "maxLength": 1})", "null") == "whole");
  CHECK(rules.schema(R"({"type": ["string", "null"], "maxLength": 1})", R"("ab)") ==
        "refused at 2");
  CHECK(rules.schema(R"({"enum": ["a", 1, {"x": [1, 2]}, "b"], "type": ["string", "object"]})",
                     R"({"x":[1,2]})") == "whole");
  CHECK(rules.schema(R"({"enum": ["a", 1], "type": "string"})", "1") == "refused at 0");
  CHECK(rules.schema(R"({"const": "a\nb"})", R"("a\nb")") == "whole");
  const std::string tree =
      R"({"$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"},
          "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
          "required": ["v", "next"]}}, "$ref": "#/$defs/node"})";
  CHECK(rules.schema(tree, R"({"v":1,"next":{"v":2,"next":null}})") == "whole");
  const std::string all =
      R"({"allOf": [{"properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]},
          {"properties": {"a": {"maximum": 5}, "b": {"type": "null"}}}], "required": ["b"]})";
  CHECK(rules.schema(all, R"({"a":4,"b":null})") == "whole");
  CHECK(rules.schema(all, R"({"a":6)") == "refused at 5");
  CHECK(rules.schema(all, R"({"a":4})") == "refused at 6");
  const std::string closed =
      R"({"allOf": [{"properties": {"a": {"properties": {"x": true}, "unevaluatedProperties": false}}}],
          "properties": {"a": {"required": ["x"]}}})";
  CHECK(rules.schema(closed, R"({"a":{"x":1}})") == "whole");
  CHECK(rules.schema(closed, R"({"a":{"y")") == "refused at 7");
  const std::string kinds =
      R"({"oneOf": [{"type": "object", "properties": {"k": {"const": "x"}, "n": {"type": "null"}},
          "required": ["k", "n"]}, {"type": "object", "properties": {"k": {"enum": ["y", "z"]}},
          "required": ["k"]}]})";
  CHECK(rules.schema(kinds, R"({"k":"x","n":null})") == "whole");
  CHECK(rules.schema(kinds, R"({"k":"z"})") == "whole");
  CHECK(rules.schema(kinds, R"({"k":"z","n")") == "refused at 8");
}

}  // namespace
}  // namespace vlm::infer
