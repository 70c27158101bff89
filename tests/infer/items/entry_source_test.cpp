// Pictures, folders, patterns and lists → entries, and what is wrong with them.
#include "infer/items/entry_source.h"

#include "infer/items/questions.h"
#include "tests/infer/items/entries.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

TEST_CASE("pictures are listed recursively, sorted, each once") {
  const ScratchFolder folder;
  for (const char* name :
       {"in/b.png", "in/deep/a.JPG", "in/c.webp", "in/notes.txt", "in/deep/.h.png"}) {
    folder.write(name, "x");
  }
  const fs::path in = folder.path() / "in";
  CHECK(ids_of(*open_arguments({(in / "c.webp").string(), in.string(), (in / "deep").string()}),
               in) == Names{"c.webp", "b.png", "deep/a.JPG"});
  CHECK_THROWS_WITH(open_arguments({"/nowhere"}), "/nowhere: no such file or folder");
  fs::create_directories(in / "empty");
  CHECK_THROWS_WITH(open_arguments({(in / "empty").string()}),
                    Contains("empty: no pictures in the folder"));
  CHECK_THROWS_WITH(open_arguments({folder.write("x.zip", "")}),
                    Contains("x.zip: unknown kind of input: wanted pictures, folders, data files"));
  CHECK_THROWS_WITH(open_arguments({folder.write("x.csv", "")}), Contains("x.csv: no rows in the"));
  CHECK_THROWS_WITH(open_arguments({folder.write("x.tar.gz", "")}),
                    Contains("x.tar.gz: the archive is compressed: wanted a plain .tar"));
}

TEST_CASE("globs match as in a shell, and ** crosses folders") {
  const ScratchFolder folder;
  for (const char* name :
       {"in/a1.png", "in/a2.png", "in/b.jpg", "in/d/a3.png", "in/d/e/a4.png", "in/.a5.png"}) {
    folder.write(name, "x");
  }
  const fs::path in = folder.path() / "in";
  const auto match = [&](const std::string& pattern) {
    return ids_of(*open_arguments({(in / pattern).string()}), in);
  };
  CHECK(match("*.png") == Names{"a1.png", "a2.png"});
  CHECK(match("a[2-9].png") == Names{"a2.png"});
  CHECK(match("?.jpg") == Names{"b.jpg"});
  CHECK(match("**/*.png") == Names{"a1.png", "a2.png", "d/a3.png", "d/e/a4.png"});
  CHECK(match("**/e/*") == Names{"d/e/a4.png"});
  CHECK(match("d/**") == Names{"d/a3.png", "d/e/a4.png"});
  CHECK(match("d*") == Names{"d/a3.png", "d/e/a4.png"});  // a folder that matches is searched
  CHECK_THROWS_WITH(match("*.gif"), Contains("*.gif: nothing matches the pattern"));
  folder.write("in/odd[1].png", "x");  // a name that only looks like a pattern
  CHECK(match("odd[1].png") == Names{"odd[1].png"});
}

TEST_CASE("a list of paths ends them by lines or NUL bytes") {
  CHECK(ids_of(*open_arguments({"-"}, "a.png\r\n\nb c.png")) == Names{"a.png", "b c.png"});
  CHECK(ids_of(*open_arguments({"-"}, std::string("a\nb.png\0c.png\0", 14))) ==
        Names{"a\nb.png", "c.png"});
  CHECK_THROWS_WITH(open_arguments({"-"}, "\n"), "-: no paths in the list");
}

TEST_CASE("lists and questions may begin with a byte order mark and end lines with CRLF") {
  const ScratchFolder folder;
  CHECK(ids_of(*open_arguments({"-"},
                               "\xEF\xBB\xBF"
                               "a.png\r\nb.png\r\n")) == Names{"a.png", "b.png"});
  const std::string file = folder.write(
      "q.jsonl", "\xEF\xBB\xBF{\"question\":\"a\"}\r\n\r\n{\"id\":\"x\",\"question\":\"b\"}\r");
  const auto questions = load_questions({}, file);
  REQUIRE(questions.size() == 2);
  CHECK(questions[0].text == "a");
  CHECK(questions[1].id == "x");
  const auto source = open_arguments(
      {folder.write("r.jsonl", "\xEF\xBB\xBF{\"id\":\"a\",\"question\":\"q\"}\r\n")});
  CHECK(ids_of(*source) == Names{"a"});
  using namespace std::string_literals;
  CHECK_THROWS_WITH(load_questions({}, folder.write("u.jsonl", "\xFF\xFE{\0"s)),
                    Contains("u.jsonl: the text is not UTF-8: got the byte order mark of UTF-16"));
  CHECK_THROWS_WITH(open_arguments({folder.write("u.jsonl", "\xFF\xFE{\0"s)}),
                    Contains("u.jsonl: the text is not UTF-8: got the byte order mark of UTF-16"));
}
}  // namespace
}  // namespace vlm::infer
