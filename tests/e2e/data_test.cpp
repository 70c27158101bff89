// What people's files hold and how the program reads them: marks of editors, columns of well-known
// layouts, requests of OpenAI's kind, rows that are broken.
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

const std::string kTiny = " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 ";

std::vector<Json> rows_of_file(const std::string& path) {
  std::vector<Json> rows;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) rows.push_back(parse_json(line, path));
  return rows;
}

TEST_CASE("a byte order mark and CRLF in a file of choices change nothing") {
  const ScratchFolder scratch;
  const std::string ask =
      "generate --model models/easy-vqa-emoji --device cpu --threads 1 --format json --image "
      "examples/pictures/shape_049.png --prompt 'what shape is in the image?' --choices-file ";
  const auto plain = run_vlm(ask + scratch.write("a.txt", "circle\nrectangle\n"));
  const auto marked = run_vlm(ask + scratch.write("b.txt",
                                                  "\xEF\xBB\xBF"
                                                  "circle\r\nrectangle\r\n"));
  CHECK(plain.code == 0);
  CHECK(parse_json(plain.out, "")["probabilities"] == parse_json(marked.out, "")["probabilities"]);
  const auto wide = run_vlm(ask + scratch.write("c.txt", std::string("\xFF\xFE"
                                                                     "c\0",
                                                                     4)));
  CHECK(wide.code == 1);
  CHECK_THAT(wide.err, Contains("c.txt: the text is not UTF-8: got the byte order mark of UTF-16"));
}

TEST_CASE("detail, null and base64 of any kind in requests; one broken row costs itself") {
  const ScratchFolder scratch;
  std::filesystem::copy(fixture("pictures/wide.png"), scratch.at("p.png"));
  const auto request = [](const std::string& id, const std::string& url, const std::string& more) {
    return R"({"custom_id":")" + id + R"(","body":{"model":)" + more +
           R"(,"max_tokens":2,"messages":[{"role":"user","content":[{"type":"image_url","image_url":)" +
           url + R"(},{"type":"text","text":"What?"}]}]}})" + "\n";
  };
  const std::string file =
      scratch.write("r.jsonl", request("low", R"({"url":"p.png","detail":"low"})", "\"m\"") +
                                   request("high", R"({"url":"p.png","detail":"high"})", "null") +
                                   request("null", R"({"url":"p.png","detail":null})", "\"m\"") +
                                   request("odd", R"({"url":"p.png","detail":"tiny"})", "\"m\"") +
                                   request("data", "\"" + std::string(5000, 'A') + "\"", "\"m\"") +
                                   request("model", "\"p.png\"", "7") + "{broken\n");
  const std::string out = scratch.at("out.jsonl");
  const auto run = run_vlm("vqa " + file + kTiny + "--output-format openai --output " + out);
  INFO(run.err);
  CHECK(run.code == 3);
  std::map<std::string, Json> rows;
  for (const Json& row : rows_of_file(out)) rows[row["custom_id"]] = row;
  REQUIRE(rows.size() == 7);
  const auto tokens = [&](const std::string& id) {
    return rows[id]["response"]["body"]["usage"]["prompt_tokens"].get<int>();
  };
  CHECK(tokens("low") < tokens("high"));
  CHECK(tokens("null") == tokens("high"));
  for (const std::string& id : std::vector<std::string>{"odd", "data", "model", file + ":7"}) {
    INFO(id);
    CHECK_FALSE(rows[id]["error"].is_null());
  }
}

TEST_CASE("layouts are learned and evaluated alike, and refused by name") {
  const ScratchFolder scratch;
  const std::string picture =
      (std::filesystem::path(VLM_SOURCE_DIR) / "examples/pictures/shape_049.png").string();
  const auto inspect = [&](const std::string& row) {
    const std::string file = scratch.write("t.jsonl", row + "\n");
    return run_vlm(
        "inspect-data configs/format_openai.json --threads 1 -n 1 --set 'train_files=[\"" + file +
        "\"]'");
  };
  const std::string image = R"("image":")" + picture + "\"";
  CHECK_THAT(
      inspect("{" + image + R"(,"instruction":"Count.","input":"shapes","output":1.10})").out,
      Contains("C|ou|nt|.|") && Contains("s|ha|p|es|<end") &&
          Contains("[[ |1|.|1|0|<end_of_utterance>]]"));
  CHECK_THAT(inspect("{" + image + R"(,"question":"q","answer":"a","text":"b"})").out,
             Contains("two columns for the response that differ: got 'answer' and 'text'"));
  CHECK_THAT(inspect("{" + image + R"(,"query":"q","response":"a","rejected_response":"b"})").out,
             Contains("column 'rejected_response' can't be used"));

  const std::string file = scratch.write(
      "e.csv", "\xEF\xBB\xBFimage,question,answer\r\n" + picture +
                   ",what shape is in the image?,circle\r\n,is there a circle?,yes\r\n");
  const std::string out = scratch.at("e.jsonl");
  const auto run = run_vlm("evaluate " + file + " --model models/easy-vqa-emoji --device cpu " +
                           "--threads 1 --output " + out);
  INFO(run.err);
  CHECK(run.code == 0);
  const auto rows = rows_of_file(out);
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["text"] == "circle");
  CHECK_FALSE(rows[1].contains("path"));
}

}  // namespace
}  // namespace vlm
