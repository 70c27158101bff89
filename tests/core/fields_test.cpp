#include "vlm/core/config/fields.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

struct Inner {
  double lr = 0.5;
  Fields fields() { return {{"learning_rate", &lr, "Step size"}}; }
};

struct Sample {
  std::int64_t r = 8;
  bool tie = false;
  std::string bias = "none";
  std::optional<std::int64_t> limit;
  Names modules = std::vector<std::string>{"q_proj"};
  Inner inner;
  Fields inner_fields = inner.fields();
  Fields fields() {
    return {{"r", &r, "Rank"},
            {"tie", &tie, "Tie"},
            {"bias", &bias, "Bias", {"none", "all"}},
            {"limit", &limit, "Limit"},
            {"modules", &modules, "Modules"},
            {"inner", &inner_fields}};
  }
};

void read(Sample& sample, const char* text, UnknownKeys unknown = UnknownKeys::kRefuse) {
  read_fields(parse_json(text, "f.json"), sample.fields(), unknown, "f.json");
}

TEST_CASE("fields read, and absent keys keep their values") {
  Sample sample;
  read(sample, R"({"r": 16, "limit": 3, "modules": ".*proj", "inner": {"learning_rate": 1}})");
  CHECK(sample.r == 16);
  CHECK(sample.limit == 3);
  CHECK(std::get<std::string>(sample.modules) == ".*proj");
  CHECK(sample.inner.lr == 1.0);
  CHECK(sample.bias == "none");
}

TEST_CASE("fields write what they read") {
  Sample sample;
  read(sample, R"({"tie": true, "limit": null})");
  CHECK(write_fields(sample.fields()).dump() ==
        R"({"r":8,"tie":true,"bias":"none","limit":null,"modules":["q_proj"],)"
        R"("inner":{"learning_rate":0.5}})");
}

TEST_CASE("an unknown key names its nearest neighbour") {
  Sample sample;
  CHECK_THROWS_WITH(read(sample, R"({"inner": {"learning_rat": 1}})"),
                    "f.json: inner: unknown key 'learning_rat' (did you mean 'learning_rate'?)");
  CHECK_THROWS_WITH(
      read(sample, R"({"zzzzzzz": 1})"),
      "f.json: unknown key 'zzzzzzz' (known keys: r, tie, bias, limit, modules, inner)");
  CHECK_NOTHROW(read(sample, R"({"zzzzzzz": 1, "r": null})", UnknownKeys::kIgnore));
  CHECK(sample.r == 8);
}

TEST_CASE("a value of the wrong type or outside its choices is refused") {
  Sample sample;
  CHECK_THROWS_WITH(read(sample, R"({"r": "8"})"),
                    "f.json: r: wrong type: got string \"8\", wanted integer");
  CHECK_THROWS_WITH(read(sample, R"({"r": null})"),
                    "f.json: r: wrong type: got null, wanted integer");
  CHECK_THROWS_WITH(read(sample, R"({"r": 1.5})"), Contains("wanted integer"));
  CHECK_THROWS_WITH(read(sample, R"({"r": 18446744073709551615})"), Contains("wanted integer"));
  CHECK_THROWS_WITH(read(sample, R"({"bias": "some"})"),
                    "f.json: bias: unknown value: got 'some', wanted none, all");
  CHECK_THROWS_WITH(read(sample, R"([1])"), "f.json: wrong type: got array, wanted object");
}

TEST_CASE("set_field overrides by path, with JSON or bare text") {
  Sample sample;
  set_field(sample.fields(), "inner.learning_rate=1e-4", "--set");
  set_field(sample.fields(), "bias=all", "--set");
  set_field(sample.fields(), R"(modules=["a","b"])", "--set");
  CHECK(sample.inner.lr == 1e-4);
  CHECK(sample.bias == "all");
  CHECK(std::get<std::vector<std::string>>(sample.modules) == std::vector<std::string>{"a", "b"});
  const std::string nested = std::string(300, '[') + std::string(300, ']');
  CHECK_THROWS_WITH(set_field(sample.fields(), "r", "--set"),
                    "--set: not an assignment: got 'r', wanted key=value");
  CHECK_THROWS_WITH(set_field(sample.fields(), "ri=3", "--set"),
                    "--set: unknown key 'ri' (did you mean 'r'?)");
  CHECK_THROWS_WITH(set_field(sample.fields(), "r.x=3", "--set"), Contains("unknown key 'r.x'"));
  CHECK_THROWS_WITH(set_field(sample.fields(), "modules=\xff", "--set"),
                    "--set: modules: value is not UTF-8");
  CHECK_THROWS_WITH(set_field(sample.fields(), "r=" + nested, "--set"),
                    "--set: r: JSON is nested too deeply: wanted at most 200 levels");
}

TEST_CASE("describe_fields shows path, type, default and choices") {
  Sample sample;
  CHECK_THAT(describe_fields(sample.fields()),
             Contains("bias  (string, default \"none\")\n      Bias [none | all]"));
  CHECK_THAT(describe_fields(sample.fields()),
             Contains("inner.learning_rate  (number, default 0.5)"));
}

}  // namespace
}  // namespace vlm
