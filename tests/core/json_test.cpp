#include "vlm/core/json.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

TEST_CASE("parse_json refuses what is not JSON, and says where") {
  CHECK(parse_json(R"({"a": [1, 2]})", "x")["a"][1] == 2);
  CHECK_THROWS_WITH(parse_json("{\"a\": ", "c.json"),
                    Contains("c.json: not valid JSON: got parse error at line 1"));
  CHECK_THROWS_WITH(parse_json("", "c.json"), Contains("c.json: not valid JSON"));
  CHECK_THROWS_WITH(parse_json("\"\xff\"", "c.json"), Contains("ill-formed UTF-8"));
}

TEST_CASE("parse_json refuses repeated keys and bottomless nesting") {
  CHECK_THROWS_WITH(parse_json(R"({"a": 1, "b": {"a": 1, "a": 2}})", "c.json"),
                    "c.json: key given twice: got \"a\"");
  CHECK_NOTHROW(parse_json(R"({"a": {"x": 1}, "b": {"x": 1}})", "c.json"));
  CHECK_THROWS_WITH(parse_json(std::string(100000, '['), "c.json"),
                    "c.json: JSON is nested too deeply: wanted at most 200 levels");
}

TEST_CASE("parse_json passes over a byte order mark and names another encoding's") {
  CHECK(parse_json("\xEF\xBB\xBF{\"a\":1}\r\n", "x")["a"] == 1);
  CHECK_THROWS_WITH(parse_json(std::string("\xFF\xFE{\0", 4), "x"),
                    "x: the text is not UTF-8: got the byte order mark of UTF-16, wanted UTF-8 "
                    "(convert it: iconv -f UTF-16 -t UTF-8)");
}

TEST_CASE("numbers are kept as written where that is asked for") {
  const std::string numbers[] = {"0",
                                 "-0",
                                 "-0.0",
                                 "7",
                                 "-7",
                                 "1.5",
                                 "1.10",
                                 "1e5",
                                 "1E+5",
                                 "1.0",
                                 "12345678901234567890",
                                 "123456789012345678901234567890",
                                 "0.1000000000000000055511"};
  for (const std::string& number : numbers) {
    const Json row = parse_json("{\"n\":[" + number + "]}", "x", Numbers::kAsWritten);
    CHECK(is_any_number(row["n"][0]));
    CHECK(number_text(row["n"][0]) == number);
    CHECK(describe(row["n"][0]).starts_with("number " + number.substr(0, 2)));
    CHECK(plain_numbers(row) == parse_json("{\"n\":[" + number + "]}", "x"));
    CHECK(parse_json("[" + number + "]", "x")[0].is_number());
  }
  CHECK_FALSE(is_any_number("1.10"));
  CHECK_THROWS_WITH(parse_json("[1e999]", "x"), Contains("x: not valid JSON: got number overflow"));
}

TEST_CASE("numbers that are passed on are rounded nowhere") {
  const auto passed = [](const std::string& text) {
    return exact_numbers(parse_ordered_json(text, "x", Numbers::kAsWritten)).dump();
  };
  CHECK(passed(R"({"b":[1.10,-0,1e5],"a":2})") == R"({"b":[1.1,0,100000.0],"a":2})");
  CHECK(passed("[123456789012345678901,1e-400,0.12345678901234567890,1200000000000000000000]") ==
        R"(["123456789012345678901","1e-400","0.12345678901234567890",1.2e+21])");
}

TEST_CASE("load_text names the file that is missing, a folder, or too large") {
  CHECK_THROWS_WITH(load_text("/nowhere/x.json"),
                    "/nowhere/x.json: can't open the file: got No such file or directory");
  CHECK_THROWS_WITH(load_text("/"), "/: is a folder, not a file");
  const auto path = std::filesystem::temp_directory_path() / "vlm_json_test.txt";
  save_text(path, "hello");
  CHECK(load_text(path) == "hello");
  CHECK_THROWS_WITH(load_text(path, 4), Contains("file is too large: wanted at most 4 bytes"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace vlm
