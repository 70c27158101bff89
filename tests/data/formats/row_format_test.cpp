// Rows of every format → samples, and what a row can do wrong.
#include "data/conversations/row_format.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

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
  for (const MediaRef& medium : sample.media) text += medium.name + ";";
  return text + "]";
}

Row row_of(const std::string& line) {
  return {.columns = parse_json(line, "f:1"), .where = "f:1", .folder = "/d"};
}

std::string parsed(const std::string& line, const DataOptions& options = {}) {
  return shown(parse_row(row_of(line), options));
}

std::string row_error(const std::string& line, const DataOptions& options = {}) {
  try {
    parsed(line, options);
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
  CHECK(row_error("[]") == "f:1: not a row: got array, wanted an object");
  CHECK(row_error("{}", {.format = "messages"}) == "f:1: no messages: got object" + wanted);
  CHECK(row_error(R"({"messages":[]})") == "f:1: no messages: got array" + wanted);
  CHECK(row_error(R"({"messages":"hello"})") == "f:1: no messages: got string \"hello\"" + wanted);
  CHECK(row_error(R"({"messages":["hello"]})") ==
        "f:1: messages[0]: no 'role': got string \"hello\", wanted an object with 'role'");
  CHECK(row_error(R"({"messages":[{"content":"a"}]})") ==
        "f:1: messages[0]: no 'role': got object, wanted an object with 'role'");
  CHECK(row_error(R"({"messages":[{"role":1,"content":"a"}]})") ==
        "f:1: messages[0]: role: wrong type: got number 1, wanted string");
  CHECK(row_error(R"({"messages":[{"role":"tool","content":"a"}]})") ==
        "f:1: messages[0]: unknown role: got 'tool', wanted user, assistant or system");
  CHECK(row_error(R"({"messages":[{"role":"user"}]})") ==
        "f:1: messages[0]: message without content: got object, wanted content");
  CHECK(row_error(user("null")) ==
        "f:1: messages[0]: message without content: got object, wanted content");
}

TEST_CASE("a malformed part is refused with its place") {
  CHECK(row_error(user(R"(["a"])")) ==
        "f:1: messages[0]: no 'type': got string \"a\", wanted an object with 'type'");
  CHECK(row_error(user(R"([{"text":"a"}])")) ==
        "f:1: messages[0]: no 'type': got object, wanted an object with 'type'");
  CHECK(row_error(user(R"([{"type":"text"}])")) ==
        "f:1: messages[0]: no 'text': got object, wanted an object with 'text'");
  CHECK(row_error(user(R"([{"type":"text","text":["a"]}])")) ==
        "f:1: messages[0]: text: wrong type: got array, wanted string");
  CHECK(row_error(user(R"([{"type":"audio"}])")) ==
        "f:1: messages[0]: unknown content part: got 'audio', wanted text, image, image_url, "
        "video or video_url");
  CHECK(row_error(user(R"([{"type":"image","path":3}])")) ==
        "f:1: messages[0]: path: wrong type: got number 3, wanted string");
}

TEST_CASE("pictures and their places must be equal in number") {
  CHECK(row_error(user(R"([{"type":"image"}])")) ==
        "f:1: more image parts than entries of 'images': got 0 entries");
  CHECK(row_error(user(R"([{"type":"image"},{"type":"image"}])", R"(,"images":["a.png"])")) ==
        "f:1: more image parts than entries of 'images': got 1 entries");
  CHECK(row_error(user(R"([{"type":"image"}])", R"(,"images":["a.png","b.png"])")) ==
        "f:1: image parts don't fit the 'images' column: got 1 parts, wanted 2");
  CHECK(row_error(user(R"([{"type":"text","text":"a"}])", R"(,"images":["a.png"])")) ==
        "f:1: image parts don't fit the 'images' column: got 0 parts, wanted 1");
  CHECK(row_error(R"({"messages":[{"role":"assistant","content":"a"}],"images":["a.png"]})") ==
        "f:1: image parts don't fit the 'images' column: got 0 parts, wanted 1");
  CHECK(row_error(user("\"a\"", R"(,"images":[7])")) ==
        "f:1: images: wrong type: got number 7, wanted a path, a data URI, or an object with "
        "'path'");
  CHECK(row_error(user("\"a\"", R"(,"images":[{}])")) ==
        "f:1: images: no 'path': got object, wanted an object with 'path'");
  CHECK(row_error(user("\"a\"", R"(,"images":[{"path":7}])")) ==
        "f:1: images: path: wrong type: got number 7, wanted string");
  CHECK_THAT(row_error(user("\"a\"", R"(,"image":7)")), Contains("f:1: image: wrong type"));
  CHECK(row_error(user(R"([{"type":"video"}])")) ==
        "f:1: more video parts than entries of 'videos': got 0 entries");
}

TEST_CASE("video parts do as image parts do, with 'videos' or 'video', in any mix") {
  const std::string parts = R"([{"type":"video"},{"type":"image"},{"type":"video","path":"c.webm"},
                               {"type":"video"}])";
  CHECK(parsed(user(parts, R"(,"images":["a.png"],"videos":["b.mp4",{"path":"d.mkv"}])")) ==
        "user: <video> <image> <video> <video> [/d/b.mp4;/d/a.png;/d/c.webm;/d/d.mkv;]");
  CHECK(parsed(user(R"([{"type":"video","video":"/e.mp4"}])")) == "user: <video> [/e.mp4;]");
  CHECK(parsed(user(R"("What?")", R"(,"video":"b.mp4","image":"a.png")")) ==
        "user: <image> <video> What? [/d/a.png;/d/b.mp4;]");
  CHECK(row_error(user(R"([])", R"(,"videos":["a.mp4"])")) ==
        "f:1: video parts don't fit the 'videos' column: got 0 parts, wanted 1");
}

TEST_CASE("clips have parts, a column and a marker of their own") {
  CHECK(parsed(user(R"([{"type":"video","path":"v.mp4"},{"type":"image"},{"type":"video"}])",
                    R"(,"images":["a.png"],"videos":["w.mp4"])")) ==
        "user: <video> <image> <video> [/d/v.mp4;/d/a.png;/d/w.mp4;]");
  const Sample sample = parse_row(
      row_of(user(R"("<image> then <video>?")", R"(,"image":"a.png","video":"v.mp4")")), {});
  CHECK(shown(sample) == "user: <image>  then  <video> ? [/d/a.png;/d/v.mp4;]");
  CHECK(sample.media[0].kind == MediaKind::kPicture);
  CHECK(sample.media[1].kind == MediaKind::kVideo);
}

TEST_CASE("OpenAI's chat: image_url with a data URI, a path or a file URL") {
  const Sample sample = parse_row(row_of(R"({"messages":[
      {"role":"developer","content":"Be brief."},
      {"role":"user","content":[
        {"type":"image_url","image_url":{"url":"data:image/png;base64,aGkh","detail":"high"}},
        {"type":"image_url","image_url":{"url":"file:///p/a%20b.png"}},
        {"type":"image_url","image_url":"c.png"},{"type":"text","text":"?"}]},
      {"role":"assistant","content":"x"}]})"),
                                  {});
  CHECK(shown(sample) ==
        "system: Be brief. | user: <image> <image> <image> ? | assistant: x "
        "[data:image/png;base64;/p/a b.png;/d/c.png;]");
  CHECK(read_bytes(sample.media[0]) == "hi!");

  const auto error = [](const std::string& part) { return row_error(user("[" + part + "]")); };
  CHECK(error(R"({"type":"image_url","image_url":{"url":"https://e.org/a.png"}})") ==
        "f:1: messages[0]: pictures are not fetched from the network: got https://e.org/a.png, "
        "wanted a file or "
        "a data URI");
  CHECK(error(R"({"type":"image_url","image_url":{"url":"s3://b/a.png"}})") ==
        "f:1: messages[0]: unknown kind of picture address: got s3://b/a.png, wanted a path, "
        "file:// or a data "
        "URI");
  CHECK(error(R"({"type":"image_url","image_url":{"url":"data:image/png,abc"}})") ==
        "f:1: messages[0]: data URI without base64 data: got data:image/png,abc, wanted "
        "data:image/…;base64,…");
  CHECK_THAT(error(R"({"type":"image_url","image_url":{"url":"data:image/png;base64,a"}})"),
             Contains("f:1: messages[0]: not base64"));
  CHECK(error(R"({"type":"image_url","image_url":{"url":"a","detail":"medium"}})") ==
        "f:1: messages[0]: image_url: detail: unsupported detail of a picture: got string "
        "\"medium\", wanted low, high or auto");
  CHECK(error(R"({"type":"image_url","image_url":{"url":"a","detail":1}})") ==
        "f:1: messages[0]: image_url: detail: unsupported detail of a picture: got number 1, "
        "wanted low, high or auto");
  CHECK(error(R"({"type":"video_url","video_url":{"url":"a","detail":"low"}})") ==
        "f:1: messages[0]: video_url: detail: unsupported detail of a video: got string \"low\", "
        "wanted high or auto");
  CHECK(error(R"({"type":"image_url"})") == "f:1: messages[0]: no 'image_url'");
}

TEST_CASE("detail says whether a picture is seen as one tile; null is as if it weren't there") {
  const auto is_whole = [](const std::string& part) {
    return parse_row(row_of(user("[" + part + "]")), {}).media.at(0).is_whole;
  };
  CHECK(is_whole(R"({"type":"image_url","image_url":{"url":"a.png","detail":"low"}})"));
  CHECK(is_whole(R"({"type":"image_url","image_url":"a.png","detail":"low"})"));
  CHECK(is_whole(R"({"type":"image","path":"a.png","detail":"low"})"));
  for (const std::string detail : {"null", "\"auto\"", "\"high\""}) {
    CHECK_FALSE(
        is_whole(R"({"type":"image_url","image_url":{"url":"a.png","detail":)" + detail + "}}"));
  }
  const Sample sample =
      parse_row(row_of(user(R"([{"type":"image","detail":"low"},{"type":"image"}])",
                            R"(,"images":["a","a"])")),
                {});
  CHECK(sample.media[0].is_whole);
  CHECK_FALSE(sample.media[1].is_whole);
  CHECK_FALSE(sample.media[0] == sample.media[1]);
}

TEST_CASE("null fields of messages are as if they weren't there, others are told by name") {
  CHECK(parsed(R"({"messages":[{"role":"user","name":"Ann","content":[
          {"type":"text","text":"q","image_url":null},
          {"type":"image","path":null,"image":{"bytes":null,"path":"b.png"}}],"tool_calls":null},
          {"role":"assistant","content":"a","function_call":null,"refusal":null,"weight":null}],
          "tools":null,"rejected":null,"system":null,"images":null})") ==
        "user: q <image> | assistant: a [/d/b.png;]");
  CHECK(row_error(R"({"messages":[{"role":"user","content":"q"},
          {"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}]})") ==
        "f:1: messages[1]: unsupported field 'tool_calls' of a message: got array (pictures and "
        "clips stand in content parts, or in columns of the row)");
  CHECK_THAT(row_error(R"({"messages":[{"role":"user","content":"q","images":["a.png"]}]})"),
             Contains("f:1: messages[0]: unsupported field 'images' of a message"));
}

TEST_CASE("a message's own flag says whether it is learned") {
  const Sample sample = parse_row(row_of(R"({"messages":[
      {"role":"user","content":"a"},{"role":"assistant","content":"b","loss":false},
      {"role":"user","content":"c","train":true},{"role":"assistant","content":"d","weight":1},
      {"role":"assistant","content":"e","training":false},{"role":"user","content":"f"}]})"),
                                  {});
  using Flags = std::vector<std::optional<bool>>;
  CHECK((sample.loss == Flags{std::nullopt, false, true, true, false, std::nullopt}));
  CHECK(parse_row(row_of(user("\"a\"")), {}).loss.empty());
  CHECK(row_error(R"({"messages":[{"role":"user","content":"a","loss":2}]})") ==
        "f:1: messages[0]: loss: wrong value: got number 2, wanted true, false, 1 or 0");
}

TEST_CASE("TRL's prompt and completion, as texts and as messages") {
  const Sample texts =
      parse_row(row_of(R"({"prompt":"q","completion":"a","images":["1.png"]})"), {});
  CHECK(shown(texts) == "user: <image> q | assistant: a [/d/1.png;]");
  CHECK(texts.completion == std::size_t{1});
  const Sample turns = parse_row(row_of(R"({
      "prompt":[{"role":"user","content":"q"},{"role":"assistant","content":"r"},
                {"role":"user","content":[{"type":"text","text":"s"}]}],
      "completion":[{"role":"assistant","content":"a"}]})"),
                                 {});
  CHECK(shown(turns) == "user: q | assistant: r | user: s | assistant: a []");
  CHECK(turns.completion == std::size_t{3});
  CHECK(row_error(R"({"prompt":"q","completion":5})") ==
        "f:1: no completion: got number 5, wanted a text or a list of messages");
}

TEST_CASE("LLaVA's and ShareGPT's conversations, with markers in the text") {
  CHECK(parsed(R"({"id":1,"image":"a.png","conversations":[
          {"from":"human","value":"<image>\nWhat is this?"},{"from":"gpt","value":"A cat."},
          {"from":"human","value":"Sure?"},{"from":"gpt","value":"Yes."}]})") ==
        "user: <image> What is this? | assistant: A cat. | user: Sure? | assistant: Yes. "
        "[/d/a.png;]");
  CHECK(parsed(R"({"image":["a.png","b.png"],"system":"s","conversations":[
          {"from":"human","value":"Compare <image> with\n<image>\n, please"},
          {"from":"gpt","value":""}]})") ==
        "system: s | user: Compare  <image>  with <image> , please | assistant:  "
        "[/d/a.png;/d/b.png;]");
  // Without markers the picture comes first; without pictures a marker is text.
  CHECK(parsed(R"({"image":"a.png","conversations":[{"from":"human","value":"q"},
                   {"from":"gpt","value":"a"}]})") == "user: <image> q | assistant: a [/d/a.png;]");
  CHECK(
      parsed(R"({"conversations":[{"role":"user","content":"q"},{"from":"model","value":"a"}]})") ==
      "user: q | assistant: a []");
  CHECK(row_error(R"({"image":["a","b"],"conversations":[{"from":"human","value":"<image>q"}]})") ==
        "f:1: image parts don't fit the 'images' column: got 1 parts, wanted 2");
  CHECK(row_error(R"({"image":"a","conversations":[{"from":"human","value":"<image><image>"}]})") ==
        "f:1: more image parts than entries of 'images': got 1 entries");
  CHECK(row_error(R"({"conversations":[{"from":"tool","value":"x"}]})") ==
        "f:1: conversations[0]: unknown role: got 'tool', wanted user, assistant or system");
  CHECK(row_error(R"({"conversations":[{"from":"gpt"}]})") ==
        "f:1: conversations[0]: no 'value': got object, wanted an object with 'value'");
  CHECK(row_error(R"({"conversations":[]})") ==
        "f:1: no conversations: got array, wanted an object with a list 'conversations'");
}

TEST_CASE("questions and answers in columns, by their usual or mapped names") {
  CHECK(parsed(R"({"question":"q?","answer":"a","image":"x.png"})") ==
        "user: <image> q? | assistant: a [/d/x.png;]");
  CHECK(parsed(R"({"file_name":"x.png","text":"A cat."})", {.prompt = "What?"}) ==
        "user: <image> What? | assistant: A cat. [/d/x.png;]");
  CHECK(parsed(R"({"file_name":"x.png","text":"A cat."})", {.prompt = ""}) ==
        "user: <image> | assistant: A cat. [/d/x.png;]");
  CHECK(parsed(R"({"frage":"q <image> ?","antwort":7,"bild":"x.png","regel":"s","text":"no"})",
               {.field_map = {{"query", "frage"},
                              {"response", "antwort"},
                              {"images", "bild"},
                              {"system", "regel"}},
                .image_folder = "/p"}) ==
        "system: s | user: q  <image>  ? | assistant: 7 [/p/x.png;]");
  const Sample several = parse_row(row_of(R"({"query":"q","answers":["a","b"]})"), {});
  CHECK(shown(several) == "user: q | assistant: a []");
  CHECK(several.references == std::vector<std::string>{"a", "b"});
  CHECK(row_error(R"({"q":"a","n":null})") ==
        "f:1: a row of no known format: got columns n, q, wanted messages, conversations, "
        "texts, prompt and completion, or an answer in 'text' (field_map names other columns)");
  CHECK(row_error(R"({"a":"b"})", {.field_map = {{"response", "c"}}}) ==
        "f:1: no column 'c': got columns a (field_map says that it is the response)");
  CHECK_THAT(row_error(R"({"text":"b"})"), Contains("f:1: neither a question nor a picture"));
  CHECK(row_error(R"({"query":"q","answer":{}})") ==
        "f:1: no answer: got object, wanted a column 'text', or a field_map");
  CHECK(row_error(R"({"query":"q","answer":{"a":1}})") ==
        "f:1: response: wrong type: got object, wanted text");
  CHECK_THAT(row_error(R"({"query":"q"})", {.format = "query_response"}),
             Contains("f:1: no answer"));
}

TEST_CASE("the format is told by the columns, unless it is named") {
  const auto detected = [](const std::string& line) { return detect_format(row_of(line), {}); };
  CHECK(detected(user("\"a\"")) == "messages");
  CHECK(detected(R"({"conversations":[],"text":"a"})") == "conversations");
  CHECK(detected(R"({"prompt":"a","completion":"b","text":"c"})") == "prompt_completion");
  CHECK(detected(R"({"prompt":"a","text":"b"})") == "query_response");
  CHECK(parsed(R"({"messages":[],"question":"q","answer":"a"})", {.format = "query_response"}) ==
        "user: q | assistant: a []");
}

TEST_CASE("pictures of a tar's row are its members") {
  Row row = row_of(user(R"([{"type":"image"},{"type":"image","path":"1.right.png"}])",
                        R"(,"image":"where/it/came/from.png")"));
  row.members = {{.name = "t.tar/d/1.left.png", .archive = "t.tar"},
                 {.name = "t.tar/d/1.right.png", .archive = "t.tar"}};
  CHECK(parse_row(row, {}).media[1] == row.members[1]);
  row.columns = parse_json(user(R"([{"type":"image","path":"2.png"}])"), "");
  CHECK_THROWS_WITH(parse_row(row, {}),
                    "f:1: messages[0]: the sample has no such picture: got 2.png");
}

}  // namespace
}  // namespace vlm::data
