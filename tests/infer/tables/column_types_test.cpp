// Which type holds all values of a column.
#include "infer/tables/column_types.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"

namespace vlm::infer {
namespace {

using data::ColumnType;

std::string text_of(const ColumnType& type) {
  switch (type.kind) {
    case ColumnType::Kind::kFlag:
      return "flag";
    case ColumnType::Kind::kInteger:
      return "integer";
    case ColumnType::Kind::kNumber:
      return "number";
    case ColumnType::Kind::kText:
      return "text";
    case ColumnType::Kind::kList:
      return "[" + text_of(type.parts.at(0).second) + "]";
    case ColumnType::Kind::kObject: {
      std::string text;
      for (const auto& [name, part] : type.parts) text += " " + name + ": " + text_of(part);
      return "{" + text.substr(1) + "}";
    }
    default:
      return "unknown";
  }
}

// The type of these values, which must not depend on their order.
std::string type_of(const std::string& values) {
  OrderedJson list = OrderedJson::parse(values);
  std::sort(list.begin(), list.end());
  std::string found;
  do {
    ColumnType type;
    for (const OrderedJson& value : list) widen(type, value);
    const std::string text = text_of(settled(type));
    if (!found.empty() && text != found) return found + " or " + text;
    found = text;
  } while (std::next_permutation(list.begin(), list.end()));
  return found;
}

TEST_CASE("a column's type holds every value, in whatever order they come") {
  CHECK(type_of("[true, false, null]") == "flag");
  CHECK(type_of("[1, 2, null]") == "integer");
  CHECK(type_of("[1, 2.5, -3]") == "number");
  CHECK(type_of(R"(["a", null, ""])") == "text");
  CHECK(type_of("[null]") == "text");
  CHECK(type_of("[]") == "text");
  CHECK(type_of(R"([1, "a", true])") == "text");
  CHECK(type_of("[true, 1]") == "text");
  CHECK(type_of("[[1, 2], [], null]") == "[integer]");
  CHECK(type_of("[[]]") == "[text]");
  CHECK(type_of(R"(["a", ["b", "c"]])") == "[text]");
  CHECK(type_of(R"([1, ["b"], {"c": 2}])") == "[text]");
  CHECK(type_of("[[[1], [2.5]], [[]]]") == "[[number]]");
  CHECK(type_of(R"([{"a": 1}, {"a": 2.5}, {"a": null}])") == "{a: number}");
  CHECK(type_of(R"([{"a": {"b": [1]}}, {"a": {"b": 2}}])") == "{a: {b: [integer]}}");
  CHECK(type_of(R"([{"a": 1}, 1, null])") == "text");
  CHECK(type_of(R"([{"a": 1}, [{"a": "x"}]])") == "[{a: text}]");
  CHECK(type_of(R"([{}])") == "text");
  CHECK(type_of(R"([{"": 1}, {"a": 1}])") == "text");
}

TEST_CASE("no number is rounded to fit a column") {
  CHECK(type_of("[9007199254740992, 0.5]") == "number");
  CHECK(type_of("[9007199254740993, 1]") == "integer");
  CHECK(type_of("[9007199254740993, 0.5]") == "text");
  CHECK(type_of("[-9007199254740993, 0.5, 1]") == "text");
  CHECK(type_of("[9223372036854775807, -9223372036854775808]") == "integer");
  CHECK(type_of("[9223372036854775808, 1]") == "text");  // one more than 64 bits hold
}

TEST_CASE("objects keep the order of their fields; what is too large or too deep is text") {
  ColumnType type;
  widen(type, OrderedJson::parse(R"({"z": 1, "a": 2})"));
  widen(type, OrderedJson::parse(R"({"a": 2, "m": "x", "z": 1})"));
  CHECK(text_of(settled(type)) == "{z: integer a: integer m: text}");
  OrderedJson large = OrderedJson::object();
  for (int i = 0; i < 1000; ++i) large["f" + std::to_string(i)] = i;
  ColumnType most;
  widen(most, large);
  CHECK(settled(most).parts.size() == 1000);
  widen(most, {{"one more", 1}});
  CHECK(text_of(settled(most)) == "text");
  const auto nested = [](int levels) {
    OrderedJson value = 1;
    for (int i = 0; i < levels; ++i) value = {{"a", value}};
    ColumnType found;
    widen(found, value);
    return text_of(settled(found));
  };
  CHECK_THAT(nested(16), Contains("{a: integer}"));
  CHECK_THAT(nested(17), Contains("{a: text}"));
}

TEST_CASE("columns of rows are found however many there are") {
  ColumnType row{.kind = ColumnType::Kind::kObject};
  OrderedJson wide = {{"id", "a"}};
  for (int i = 0; i < 1500; ++i) wide["c" + std::to_string(i)] = i;
  widen_columns(row, {{"id", ""}, {"error", ""}});
  widen_columns(row, wide);
  widen_columns(row, {{"error", "why"}, {"c7", 0.5}});
  CHECK(row.parts.size() == 1502);
  CHECK(row.parts[1].first == "error");
  CHECK(text_of(settled(row)).starts_with("{id: text error: text c0: integer"));
  CHECK_THAT(text_of(settled(row)), Contains("c7: number"));
}

}  // namespace
}  // namespace vlm::infer
