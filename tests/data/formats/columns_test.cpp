// What the columns of well-known layouts become, and those that are refused by name.
#include <nlohmann/json.hpp>

#include "data/conversations/row_format.h"
#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

Sample sample_of(const std::string& line, const DataOptions& options = {}) {
  const Row row{
      .columns = parse_json(line, "f:1", Numbers::kAsWritten), .where = "f:1", .folder = "/d"};
  return parse_row(row, options);
}

std::string turns_of(const std::string& line, const DataOptions& options = {}) {
  std::string text;
  const Sample sample = sample_of(line, options);
  for (const Message& message : sample.messages) {
    text += (text.empty() ? "" : " | ") + message.role + ":";
    for (const ContentPart& part : message.content) {
      text += part.type == "text" ? " " + part.text : " <" + part.type + ">";
    }
  }
  return text;
}

std::string column_error(const std::string& line, const DataOptions& options = {}) {
  try {
    return "no error: " + turns_of(line, options);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_CASE("Alpaca: instruction, input, output, system and history") {
  CHECK(turns_of(R"({"instruction":"Add.","input":"2 and 3","output":"5"})") ==
        "user: Add.\n2 and 3 | assistant: 5");
  CHECK(turns_of(R"({"instruction":"Add.","input":"","output":"5","system":"","history":[]})") ==
        "user: Add. | assistant: 5");
  CHECK(turns_of(R"({"instruction":"c","input":null,"output":"d","system":"s",
                   "history":[["a","b"],["x","y"]]})") ==
        "system: s | user: a | assistant: b | user: x | assistant: y | user: c | assistant: d");
  // tatsu-lab/alpaca holds all of it once more.
  CHECK(turns_of(R"({"instruction":"i","input":"","output":"o","text":"### i ### o"})") ==
        "user: i | assistant: o");
  CHECK(turns_of(R"({"input":"q","output":"a"})") == "user: q | assistant: a");
  CHECK(column_error(R"({"instruction":"i","output":"o","history":["a","b"]})") ==
        "f:1: history: wrong type: got string \"a\", wanted a list of pairs [question, answer]");
}

TEST_CASE("ms-swift: query, response, history, and what it has for other trainings") {
  CHECK(
      turns_of(R"({"query":"<image>c","response":"d","history":[["a","b"]],"images":["x.png"]})") ==
      "user: a | assistant: b | user: <image> c | assistant: d");
  CHECK(turns_of(R"({"query":"c","response":"d","history":"[]"})") == "user: c | assistant: d");
  CHECK(
      column_error(R"({"query":"q","response":"a","rejected_response":"b"})") ==
      "f:1: column 'rejected_response' can't be used: got string \"b\" (an answer to be avoided is "
      "not supported: every answer is learned; field_map {\"rejected\": null} leaves it out)");
  CHECK(turns_of(R"({"query":"q","response":"a","rejected_response":"b"})",
                 {.field_map = {{"rejected", ""}}}) == "user: q | assistant: a");
  CHECK_THAT(column_error(R"({"query":"q","response":"a","objects":{"bbox":[[1,2]]}})"),
             Contains("column 'objects' can't be used"));
  CHECK_THAT(column_error(R"({"messages":[{"role":"user","content":"q"}],"label":false})"),
             Contains("column 'label' can't be used"));
  CHECK_THAT(
      column_error(R"({"messages":[{"role":"user","content":"q"}],"tools":"[{}]"})"),
      Contains("column 'tools' can't be used: got string \"[{}]\" (tools are not supported"));
  CHECK_THAT(column_error(R"({"messages":[{"role":"user","content":"q"}],"history":[["a","b"]]})"),
             Contains("column 'history' can't be used"));
  CHECK_THAT(column_error(R"({"query":"q","response":"a","audios":["a.wav"]})"),
             Contains("column 'audios' can't be used"));
}

TEST_CASE("preferences are refused by name, and the chosen answer may be learned") {
  const std::string row = R"({"prompt":"p","chosen":"a","rejected":"b"})";
  CHECK_THAT(column_error(row), Contains("f:1: column 'chosen' can't be used"));
  CHECK(turns_of(row, {.field_map = {{"completion", "chosen"}, {"rejected", ""}}}) ==
        "user: p | assistant: a");
}

TEST_CASE("a row's system message goes with every format") {
  CHECK(turns_of(R"({"messages":[{"role":"user","content":"q"}],"system":"s"})") ==
        "system: s | user: q");
  CHECK(turns_of(R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}],
                   "system":"s"})") == "system: s | user: q");
  CHECK(turns_of(R"({"prompt":"q","completion":"a","system":"s"})") ==
        "system: s | user: q | assistant: a");
  CHECK(turns_of(R"({"system_prompt":"s","question":"q","response":"a"})") ==
        "system: s | user: q | assistant: a");
  CHECK(
      column_error(R"({"conversations":[{"from":"system","value":"t"},{"from":"human","value":"q"}],
                      "system":"s"})") ==
      "f:1: two system messages that differ: got the column's string \"s\" and the first turn's "
      "string \"t\" (field_map {\"system\": null} leaves the column out)");
}

TEST_CASE("the Cauldron's texts are turns about the row's pictures") {
  CHECK(turns_of(R"({"images":["a.png","b.png"],"texts":[
          {"user":"q","assistant":"a","source":"x"},{"user":"r","assistant":"b","source":"x"}]})") ==
        "user: <image> <image> q | assistant: a | user: r | assistant: b");
  CHECK(column_error(R"({"texts":[{"user":"q"}]})") ==
        "f:1: texts[0]: no 'assistant': got object, wanted an object with 'assistant'");
  CHECK(column_error(R"({"texts":["a"]})") ==
        "f:1: texts[0]: no 'user': got string \"a\", wanted an object with 'user'");
}

TEST_CASE("VQAv2, TextVQA, SQuAD and captions: lists of right answers") {
  const Sample vqa = sample_of(R"({"question":"q","image":"a.png","answers":[
      {"answer":"cat","answer_confidence":"yes","answer_id":1},
      {"answer":"kitten","answer_confidence":"maybe","answer_id":2}],
      "multiple_choice_answer":"kitten","answer_type":"other"})");
  CHECK(vqa.messages.back().content[0].text == "kitten");
  CHECK(vqa.references == std::vector<std::string>{"cat", "kitten"});
  CHECK(sample_of(R"({"question":"q","answers":[{"answer":"cat"},{"answer":7}]})").references ==
        std::vector<std::string>{"cat", "7"});
  const Sample both = sample_of(R"({"question":"q","answer":"x","answers":["a","b"]})");
  CHECK(both.messages.back().content[0].text == "x");
  CHECK(both.references == std::vector<std::string>{"x", "a", "b"});
  CHECK(turns_of(R"({"context":"c","question":"q","answers":{"text":["a"],"answer_start":[0]}})") ==
        "user: c\nq | assistant: a");
  const Sample caption = sample_of(R"({"image":"a.png","caption":["one","two"]})", {.prompt = "?"});
  CHECK(caption.references == std::vector<std::string>{"one", "two"});
  CHECK(turns_of(R"({"image":"a.png","query":"q","label":["3"]})") ==
        "user: <image> q | assistant: 3");
  CHECK(column_error(R"({"question":"q","answers":[]})") ==
        "f:1: no answer: got array, wanted a column 'text', or a field_map");
  CHECK_THAT(column_error(R"({"question":"q","answers":[{"confidence":1}]})"),
             Contains("f:1: response: wrong type: got object, wanted text"));
}

TEST_CASE("COCO's sentences, and texts in several languages") {
  CHECK(sample_of(R"({"image":"a.png","sentences":[{"raw":"one","sentid":1},{"raw":"two"}]})")
            .references == std::vector<std::string>{"one", "two"});
  CHECK(turns_of(R"({"query":{"de":"Was?","en":"What?"},"answers":["a","b"],
                     "answer":{"text":"b","start":3}})") == "user: What? | assistant: b");
  CHECK_THAT(column_error(R"({"query":{"de":"Was?"},"answer":"a"})"),
             Contains("f:1: query: wrong type: got object, wanted text"));
}

TEST_CASE("ScienceQA: choices are shown, and a number is the place of one") {
  const std::string row = R"({"image":null,"question":"Which?","choices":["a cat","a dog"],
      "hint":"Look.","task":"closed choice","lecture":"…","answer":)";
  CHECK(turns_of(row + "1}") == "user: Look.\nWhich?\nA. a cat\nB. a dog | assistant: a dog");
  CHECK(turns_of(row + "\"B\"}") == "user: Look.\nWhich?\nA. a cat\nB. a dog | assistant: B");
  CHECK(turns_of(row + "\"a cat\"}") ==
        "user: Look.\nWhich?\nA. a cat\nB. a dog | assistant: a cat");
  CHECK(turns_of(R"({"question":"q","options":[1.50,2],"answer":"2"})") ==
        "user: q\nA. 1.50\nB. 2 | assistant: 2");
  for (const std::string answer : {"2", "-1", "\"1\"", "1.0"}) {
    CHECK_THAT(column_error(row + answer + "}"),
               Contains("f:1: the answer is none of the choices"));
  }
  CHECK(column_error(R"({"question":"q","choices":"['a','b']","answer":"a"})") ==
        "f:1: no choices: got string \"['a','b']\", wanted a list of up to 26 texts");
}

TEST_CASE("two columns for one thing that differ are an error that names both") {
  CHECK(column_error(R"({"question":"q","answer":"a","text":"b"})") ==
        "f:1: two columns for the response that differ: got 'answer' and 'text' (say which it is: "
        "field_map {\"response\": \"answer\"})");
  CHECK(turns_of(R"({"question":"q","answer":"a","text":"b"})",
                 {.field_map = {{"response", "answer"}}}) == "user: q | assistant: a");
  CHECK(turns_of(R"({"question":"q","answer":"a","text":" a\n"})") == "user: q | assistant: a");
  CHECK(turns_of(R"({"question":"q","answer":"","text":"b"})") == "user: q | assistant: b");
  CHECK(turns_of(R"({"question":"q","answer":"a","words":"b"})", {.text_column = "words"}) ==
        "user: q | assistant: b");
  CHECK_THAT(column_error(R"({"question":"q","query":"r","answer":"a"})"),
             Contains("two columns for the query that differ: got 'query' and 'question'"));
  CHECK_THAT(column_error(R"({"question":"q","instruction":"r","answer":"a"})"),
             Contains("two columns for the query that differ"));
  CHECK(turns_of(R"({"question":"q","instruction":"r","answer":"a"})",
                 {.field_map = {{"system", "instruction"}}}) ==
        "system: r | user: q | assistant: a");
  CHECK(turns_of(R"({"Question":"q","ANSWER":"a"})") == "user: q | assistant: a");
}

TEST_CASE("a task without a question is told, beside one it is about the row") {
  CHECK(column_error(R"({"image":"a.png","task":"ocr","answer":"a"})") ==
        "f:1: a task without a question: got string \"ocr\" (field_map {\"query\": \"task\"} asks "
        "it, "
        "{\"task\": null} leaves it out)");
  CHECK(turns_of(R"({"image":"a.png","task":"ocr","answer":"a"})",
                 {.field_map = {{"query", "task"}}}) == "user: <image> ocr | assistant: a");
  CHECK(turns_of(R"({"image":"a.png","task":"ocr","answer":"a"})",
                 {.field_map = {{"task", ""}}, .prompt = "?"}) == "user: <image> ? | assistant: a");
}

TEST_CASE("empty cells, null and empty lists of pictures are no picture") {
  for (const std::string none : {"\"\"", "null", "[]"}) {
    CHECK(turns_of(R"({"question":"q","answer":"a","image":)" + none + "}") ==
          "user: q | assistant: a");
    CHECK_THAT(column_error(R"({"caption":"a","image":)" + none + "}"),
               Contains("f:1: neither a question nor a picture"));
  }
  CHECK(turns_of(R"({"question":"q","answer":"a","image":"","file_name":"b.png"})") ==
        "user: <image> q | assistant: a");
  CHECK_THAT(column_error(R"({"question":"q","answer":"a","images":["a.png",""]})"),
             Contains("f:1: images: an empty path"));
  CHECK_THAT(column_error(R"({"question":"q","answer":"a","images":[null]})"),
             Contains("f:1: images: wrong type: got null"));
}

TEST_CASE("bytes come before the path that they were read from") {
  const auto medium = [](const std::string& picture) {
    return sample_of(R"({"question":"q","answer":"a","image":)" + picture + "}").media.at(0);
  };
  CHECK(read_bytes(medium(R"({"path":"a.png","bytes":"aGkh"})")) == "hi!");
  CHECK(medium(R"({"bytes":null,"path":"a.png"})").name == "/d/a.png");
  CHECK(medium(R"({"bytes":"","path":"a.png"})").name == "/d/a.png");
  CHECK(read_bytes(medium(R"({"bytes":"data:image/png;base64,aGkh"})")) == "hi!");
  CHECK_THAT(
      column_error(R"({"question":"q","answer":"a","image":{"bytes":[1,2],"path":"a.png"}})"),
      Contains("f:1: image: bytes: wrong type: got array, wanted string"));
}

TEST_CASE("bytes of tables are pictures as they are") {
  Row row{.columns = parse_json(R"({"question":"q","answer":"a"})", ""),
          .where = "f:1",
          .folder = "/d"};
  const Json bytes = Json::binary({'h', 'i'});
  for (const Json& picture : {bytes, Json{{"bytes", bytes}, {"path", "a.png"}}}) {
    row.columns["image"] = picture;
    CHECK(read_bytes(parse_row(row, {}).media.at(0)) == "hi");
  }
  row.columns["image"] = Json{{"bytes", Json::binary({})}, {"path", "a.png"}};
  CHECK(parse_row(row, {}).media.at(0).name == "/d/a.png");
  row.columns["image"] = {{"bytes", nullptr}, {"path", nullptr}};
  CHECK_THROWS_WITH(parse_row(row, {}),
                    "f:1: image: no 'path': got object, wanted an object with 'path'");
  row.columns.erase("image");
  row.columns["answer"] = bytes;
  CHECK_THROWS_WITH(parse_row(row, {}), "f:1: response: wrong type: got 2 bytes, wanted text");
}

TEST_CASE("a label is an answer to a question, and otherwise a class") {
  CHECK(turns_of(R"({"question":"q","label":"cat"})") == "user: q | assistant: cat");
  for (const std::string label : {"\"cat\"", "3", "true"}) {
    CHECK_THAT(column_error(R"({"image":"a.png","label":)" + label + "}"),
               Contains("f:1: a row of no known format: got columns image, label"));
  }
  CHECK(turns_of(R"({"image":"a.png","label":3})",
                 {.field_map = {{"response", "label"}}, .prompt = "?"}) ==
        "user: <image> ? | assistant: 3");
}

TEST_CASE("a column with a picture that no format reads is told") {
  CHECK_THAT(
      column_error(R"({"question":"q","answer":"a","image_1":{"bytes":null,"path":"a.png"}})"),
      Contains("f:1: column 'image_1' can't be used: got object (a picture or clip that no "
               "format reads; field_map {\"images\": null} leaves it out)"));
  CHECK(turns_of(R"({"question":"q","answer":"a","image_1":{"path":"a.png"}})",
                 {.field_map = {{"images", "image_1"}}}) == "user: <image> q | assistant: a");
  CHECK(turns_of(R"({"question":"q","answer":"a","image_path":"a.png"})") ==
        "user: <image> q | assistant: a");
}

TEST_CASE("numbers are learned as they stand in the file") {
  for (const std::string number :
       {"12345678901234567890", "123456789012345678901234567890", "1.10", "1e5", "1E-05", "-0", "0",
        "7", "3.0", "0.1000000000000000055"}) {
    CHECK(turns_of(R"({"question":)" + number + R"(,"answer":)" + number + "}") ==
          "user: " + number + " | assistant: " + number);
    CHECK(sample_of(R"({"question":"q","answers":[)" + number + "]}").references ==
          std::vector<std::string>{number});
    CHECK(sample_of(R"({"question":"q","answer":"a","references":[)" + number + "]}").references ==
          std::vector<std::string>{number});
  }
  CHECK(sample_of(R"({"messages":[{"role":"user","content":"a","loss":1.00}]})").loss[0] == true);
}

}  // namespace
}  // namespace vlm::data
