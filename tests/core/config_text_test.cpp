// YAML as people write it, and errors with their places.
#include "vlm/core/config/config_text.h"

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"

namespace vlm {
namespace {

OrderedJson read(const std::string& text) {
  return parse_yaml(text, "c.yaml").values;
}

std::string error_of(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("YAML is read by the core schema") {
  CHECK(read("a: 1e-4\nb: -3\nc: 0x10\nd: 1.50\ne: ~\nf:\ng: true\nh: yes\ni: '12'\nj: \"true\"\n"
             "k: 1_000\nl: 2026-11-29\nm: .inf\n") ==
        OrderedJson::parse(R"({"a": 1e-4, "b": -3, "c": 16, "d": 1.5, "e": null, "f": null,
          "g": true, "h": "yes", "i": "12", "j": "true", "k": "1_000", "l": "2026-11-29",
          "m": ".inf"})"));
  CHECK(
      read(
          "list:\n  - a\n  - path: b  # a comment\n    weight: 2\nempty: []\nmap: {x: [1, 2]}\n") ==
      OrderedJson::parse(
          R"({"list": ["a", {"path": "b", "weight": 2}], "empty": [], "map": {"x": [1, 2]}})"));
  CHECK(read("base: &b {r: 8, s: 1}\nmine:\n  <<: *b\n  r: 16\n") ==
        OrderedJson::parse(R"({"base": {"r": 8, "s": 1}, "mine": {"r": 16, "s": 1}})"));
  CHECK(read("").is_object());
  CHECK(read("\xEF\xBB\xBF"
             "a: 1\r\nb: 2\r\n") == OrderedJson::parse(R"({"a": 1, "b": 2})"));
}

TEST_CASE("errors of YAML name line and column") {
  CHECK_THAT(error_of("a: [1,\nb: 2"), Contains("c.yaml:2:") && Contains("not valid YAML"));
  CHECK(error_of("a: 1\nb: 2\na: 3\n") == "c.yaml:3:1: key 'a' given twice: wanted once");
  CHECK_THAT(error_of("a: 1\n---\nb: 2\n"), Contains("several YAML documents"));
  CHECK_THAT(error_of("a: !!python/object x\n"), Contains("tags aren't read"));
  CHECK_THAT(error_of("? [1, 2]\n: 3\n"), Contains("a key that isn't text"));
  std::string bomb = "a0: &a0 [x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int k = 0; k < 8; ++k) bomb += ", " + before;
    bomb += "]\n";
  }
  CHECK_THAT(error_of(bomb), Contains("too many values"));
  std::string deep;
  for (int i = 0; i < 300; ++i) deep += "[";
  CHECK_FALSE(error_of("a: " + deep).empty());
}

TEST_CASE("an error about a key gets the key's place") {
  const ConfigText text =
      parse_yaml("r: 8\nvideo:\n  fps: 1\nfiles:\n  - a\n  - path: b\n", "c.yaml");
  const auto placed = [&](const ErrorParts& parts) {
    return std::string(text.placed(Error(parts)).what());
  };
  CHECK(placed({.what = "wrong type", .where = "c.yaml: r"}) == "c.yaml:1:1: r: wrong type");
  CHECK(placed({.what = "unknown key 'fps'", .where = "c.yaml: video"}) ==
        "c.yaml:3:3: video: unknown key 'fps'");
  CHECK(placed({.what = "unknown key 'video'", .where = "c.yaml"}) ==
        "c.yaml:2:1: unknown key 'video'");
  CHECK(placed({.what = "out of range", .where = "files[1].weight"}) ==
        "c.yaml:6:5: files[1].weight: out of range");
  CHECK(placed({.what = "no training data", .where = "train_files"}) ==
        "c.yaml: train_files: no training data");
}

TEST_CASE("the suffix tells YAML from JSON") {
  const ScratchFolder scratch;
  CHECK(load_config_text(scratch.write("a.yml", "a: 1")).values["a"] == 1);
  CHECK(load_config_text(scratch.write("a.json", R"({"a": 1})")).values["a"] == 1);
  CHECK_THROWS_WITH(load_config_text(scratch.write("b.json", "a: 1")), Contains("not valid JSON"));
}

TEST_CASE("configs may begin with a byte order mark and end lines with CRLF") {
  const ScratchFolder folder;
  const auto load = [&](const char* name, const std::string& text) {
    return load_config_text(folder.write(name, text)).values.dump();
  };
  CHECK(load("a.yaml", "\xEF\xBB\xBFr: 8\r\nseed: 3\r\n") == R"({"r":8,"seed":3})");
  CHECK(load("a.json", "\xEF\xBB\xBF{\"r\":8,\r\n\"seed\":3}\r\n") == R"({"r":8,"seed":3})");
  CHECK_THROWS_WITH(load("a.yaml", std::string("\xFE\xFF\0r", 4)),
                    Contains("a.yaml: the text is not UTF-8: got the byte order mark of UTF-16"));
  CHECK_THROWS_WITH(load("a.json", std::string("\xFE\xFF\0{", 4)),
                    Contains("a.json: the text is not UTF-8: got the byte order mark of UTF-16"));
}

}  // namespace
}  // namespace vlm
