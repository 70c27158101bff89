// Lines of Hugging Face messages → samples, and what a line can do wrong.
#include "data/jsonl_dataset.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

// A sample on one line: "role: text <image> text | role: …  [paths]".
std::string shown(const Sample& sample) {
  std::string text;
  for (const Message& message : sample.messages) {
    text += (text.empty() ? "" : " | ") + message.role + ":";
    for (const ContentPart& part : message.content) {
      text += part.type == "text" ? " " + part.text : " <" + part.type + ">";
    }
  }
  text += " [";
  for (const fs::path& path : sample.images) text += path.string() + ";";
  return text + "]";
}

std::string parsed(const std::string& line) {
  return shown(parse_sample(parse_json(line, "f:1"), "/d", "f:1"));
}

std::string error_of(const std::string& line) {
  try {
    parsed(line);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A line with one user message of this content, and the rest of the object.
std::string user(const std::string& content, const std::string& rest = "") {
  return R"({"messages":[{"role":"user","content":)" + content + "}]" + rest + "}";
}

TEST_CASE("parts, plain text and system messages") {
  CHECK(parsed(R"({"messages":[
          {"role":"system","content":"Be brief."},
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
          {"role":"assistant","content":"c"}]})") ==
        "system: Be brief. | user: a b | assistant: c []");
  CHECK(parsed(user("[]")) == "user: []");
  CHECK(parsed(user(R"("naïve 日 \n")")) == "user: naïve 日 \n []");
}

TEST_CASE("video parts do as image parts do, with 'videos' or 'video', in any mix") {
  const std::string parts = R"([{"type":"video"},{"type":"image"},{"type":"video","path":"c.webm"},
                               {"type":"video"}])";
  CHECK(parsed(user(parts, R"(,"images":["a.png"],"videos":["b.mp4",{"path":"d.mkv"}])")) ==
        "user: <video> <image> <video> <video> [/d/b.mp4;/d/a.png;/d/c.webm;/d/d.mkv;]");
  CHECK(parsed(user(R"([{"type":"video","video":"/e.mp4"}])")) == "user: <video> [/e.mp4;]");
  CHECK(parsed(user(R"("What?")", R"(,"video":"b.mp4","image":"a.png")")) ==
        "user: <image> <video> What? [/d/a.png;/d/b.mp4;]");
}

TEST_CASE("image parts take the entries of 'images' in order, or name their own path") {
  const std::string parts = R"([{"type":"image"},{"type":"text","text":"and"},{"type":"image"}])";
  CHECK(parsed(user(parts, R"(,"images":["a.png","sub/b.png"])")) ==
        "user: <image> and <image> [/d/a.png;/d/sub/b.png;]");
  CHECK(parsed(user(parts, R"(,"images":[{"path":"a.png","bytes":null},"/abs/b.png"])")) ==
        "user: <image> and <image> [/d/a.png;/abs/b.png;]");
  CHECK(parsed(user(R"([{"type":"image","path":"x.png"},{"type":"image"},
                        {"type":"image","image":"y.png"}])",
                    R"(,"images":["a.png"])")) ==
        "user: <image> <image> <image> [/d/x.png;/d/a.png;/d/y.png;]");
  CHECK(parsed(user(R"([{"type":"image","path":null,"text":null}])", R"(,"image":"a.png")")) ==
        "user: <image> [/d/a.png;]");
  CHECK(parsed(user(R"([{"type":"text","text":"a"}])", R"(,"images":null)")) == "user: a []");
}

TEST_CASE("with plain text the pictures stand before the first user turn, as TRL puts them") {
  CHECK(parsed(R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"q"},
                   {"role":"assistant","content":"a"},{"role":"user","content":"r"}],
                   "images":["1.png","2.png"]})") ==
        "system: s | user: <image> <image> q | assistant: a | user: r [/d/1.png;/d/2.png;]");
  // Places that the parts name are kept.
  CHECK(parsed(R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":
                   [{"type":"text","text":"q"},{"type":"image"}]}],"images":["1.png"]})") ==
        "system: s | user: q <image> [/d/1.png;]");
}

TEST_CASE("a malformed sample is refused with its place") {
  const std::string wanted = ", wanted an object with a list 'messages'";
  CHECK(error_of("[]") == "f:1: no messages: got array" + wanted);
  CHECK(error_of("{}") == "f:1: no messages: got object" + wanted);
  CHECK(error_of(R"({"messages":[]})") == "f:1: no messages: got object" + wanted);
  CHECK(error_of(R"({"messages":"hello"})") == "f:1: no messages: got object" + wanted);
  CHECK(error_of(R"({"messages":["hello"]})") ==
        "f:1: no 'role': got string \"hello\", wanted an object with 'role'");
  CHECK(error_of(R"({"messages":[{"content":"a"}]})") ==
        "f:1: no 'role': got object, wanted an object with 'role'");
  CHECK(error_of(R"({"messages":[{"role":1,"content":"a"}]})") ==
        "f:1: role: wrong type: got number 1, wanted string");
  CHECK(error_of(R"({"messages":[{"role":"tool","content":"a"}]})") ==
        "f:1: unknown role: got 'tool', wanted user, assistant or system");
  CHECK(error_of(R"({"messages":[{"role":"user"}]})") ==
        "f:1: message without content: got object, wanted content");
  CHECK(error_of(user("null")) ==
        "f:1: content: wrong type: got null, wanted text or a list of parts");
}

TEST_CASE("a malformed part is refused with its place") {
  CHECK(error_of(user(R"(["a"])")) ==
        "f:1: no 'type': got string \"a\", wanted an object with 'type'");
  CHECK(error_of(user(R"([{"text":"a"}])")) ==
        "f:1: no 'type': got object, wanted an object with 'type'");
  CHECK(error_of(user(R"([{"type":"text"}])")) ==
        "f:1: no 'text': got object, wanted an object with 'text'");
  CHECK(error_of(user(R"([{"type":"text","text":["a"]}])")) ==
        "f:1: text: wrong type: got array, wanted string");
  CHECK(error_of(user(R"([{"type":"sound"}])")) ==
        "f:1: unknown content part: got 'sound', wanted text, image or video");
  CHECK(error_of(user(R"([{"type":"video"}])")) ==
        "f:1: more video parts than entries of 'videos': got 0 entries");
  CHECK(error_of(user(R"([])", R"(,"videos":["a.mp4"])")) ==
        "f:1: video parts don't fit the 'videos' column: got 0 parts, wanted 1");
  CHECK(error_of(user(R"([{"type":"image","path":3}])")) ==
        "f:1: path: wrong type: got number 3, wanted string");
}

TEST_CASE("pictures and their places must be equal in number") {
  CHECK(error_of(user(R"([{"type":"image"}])")) ==
        "f:1: more image parts than entries of 'images': got 0 entries");
  CHECK(error_of(user(R"([{"type":"image"},{"type":"image"}])", R"(,"images":["a.png"])")) ==
        "f:1: more image parts than entries of 'images': got 1 entries");
  CHECK(error_of(user(R"([{"type":"image"}])", R"(,"images":["a.png","b.png"])")) ==
        "f:1: image parts don't fit the 'images' column: got 1 parts, wanted 2");
  CHECK(error_of(user(R"([{"type":"text","text":"a"}])", R"(,"images":["a.png"])")) ==
        "f:1: image parts don't fit the 'images' column: got 0 parts, wanted 1");
  CHECK(error_of(R"({"messages":[{"role":"assistant","content":"a"}],"images":["a.png"]})") ==
        "f:1: image parts don't fit the 'images' column: got 0 parts, wanted 1");
  CHECK(error_of(user("\"a\"", R"(,"images":[7])")) ==
        "f:1: images: no 'path': got number 7, wanted an object with 'path'");
  CHECK(error_of(user("\"a\"", R"(,"images":[{"path":7}])")) ==
        "f:1: images: path: wrong type: got number 7, wanted string");
  CHECK(error_of(user("\"a\"", R"(,"image":7)")) ==
        "f:1: image: no 'path': got number 7, wanted an object with 'path'");
}

TEST_CASE("lines: CRLF, blank ones, a byte order mark, no end of line at the end") {
  const ScratchFolder scratch;
  const std::string file =
      scratch.write("t.jsonl", "\xEF\xBB\xBF" + user("\"one\"") + "\r\n\r\n \t\n" +
                                   user("\"two\"", R"(,"images":["p.png"])") + "\n{\"messages\"\n" +
                                   user("\"four\""));
  const auto dataset = load_jsonl_dataset(file);
  REQUIRE(dataset->size() == 4);
  CHECK(shown(dataset->at(0)) == "user: one []");
  CHECK(dataset->at(0).where == file + ":1");
  CHECK(shown(dataset->at(1)) == "user: <image> two [" + scratch.at("p.png") + ";]");
  CHECK(dataset->at(1).where == file + ":4");
  CHECK_THROWS_WITH(dataset->at(2), Contains(file + ":5: not valid JSON: got parse error"));
  CHECK(shown(dataset->at(3)) == "user: four []");
  CHECK(dataset->at(3).where == file + ":6");
  CHECK(load_jsonl_dataset(scratch.write("empty.jsonl", "\n\n"))->size() == 0);
}

}  // namespace
}  // namespace vlm::data
