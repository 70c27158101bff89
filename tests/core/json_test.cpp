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
