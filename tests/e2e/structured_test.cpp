// Answers that follow a schema, a pattern or a grammar, as users of the program meet them.
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/e2e/killed_run.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

const std::string kModel = " --model models/easy-vqa-emoji --device cpu --threads 1 ";
const std::string kAsk = " --prompt 'what shape is in the image?' ";
const std::string kSchema =
    R"('{"type": "object", "properties": {"shape": {"enum": ["circle", "square"]},)"
    R"( "n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["shape", "n"]}')";

std::vector<OrderedJson> rows_of(const std::string& file) {
  std::istringstream in(read_file(file));
  std::vector<OrderedJson> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(OrderedJson::parse(line));
  return rows;
}

void check_shape(const OrderedJson& value) {
  REQUIRE(value.is_object());
  CHECK((value.at("shape") == "circle" || value.at("shape") == "square"));
  CHECK((value.at("n") >= 1 && value.at("n") <= 9));
}

TEST_CASE("generate answers as a schema, a pattern or a grammar says") {
  const ScratchFolder folder;
  const ProgramResult schema = run_vlm("generate" + kModel + kAsk + "--json-schema " + kSchema);
  REQUIRE(schema.code == 0);
  check_shape(OrderedJson::parse(schema.out));
  CHECK(schema.out.starts_with("{"));
  folder.write("s.json", R"({"enum": ["only"]})");
  CHECK(run_vlm("generate" + kModel + kAsk + "--json-schema " + folder.at("s.json")).out ==
        "\"only\"\n");
  CHECK(run_vlm("generate" + kModel + kAsk + "--regex '[0-9]{3}-x'").out.size() == 6);
  folder.write("g.ebnf", "root ::= \"yes\" | \"no\"");
  const std::string word =
      run_vlm("generate" + kModel + kAsk + "--grammar " + folder.at("g.ebnf")).out;
  CHECK((word == "yes\n" || word == "no\n"));
  const ProgramResult beams = run_vlm("generate" + kModel + kAsk + "--json --num-beams 3" +
                                      " --num-return-sequences 2 --json-schema " + kSchema);
  const OrderedJson report = OrderedJson::parse(beams.out);
  check_shape(report["json"]);
  check_shape(report["alternatives"][0]["json"]);
  CHECK(report["text"] != report["alternatives"][0]["text"]);
  const ProgramResult sampled = run_vlm("generate" + kModel + kAsk + "--json --seed 5 --top-k 0" +
                                        " --temperature 2 --json-object --max-new-tokens 300");
  const OrderedJson drawn = OrderedJson::parse(sampled.out);
  CHECK((drawn.contains("error") || drawn["json"].is_object()));
}

TEST_CASE("on a GPU answers follow a schema as on the processor") {
  const std::string ask = "generate --model models/easy-vqa-emoji --threads 1 --dtype float32" +
                          kAsk + "--json-schema " + kSchema + " --device ";
  const ProgramResult gpu =
      run_shell(std::string("exec '") + VLM_SIMULATED + "' " + ask + "cuda", VLM_SOURCE_DIR);
  INFO(gpu.err);
  REQUIRE(gpu.code == 0);
  CHECK(gpu.out == run_vlm(ask + "cpu").out);
}

TEST_CASE("a build without XGrammar says what is missing, and answers all else") {
  const ScratchFolder nothing;
  const std::string program = "VLM_PLUGIN_DIR=" + nothing.path().string() + " '" + VLM_BINARY +
                              "' generate" + kModel + kAsk;
  const ProgramResult refused = run_shell(program + "--json-object", VLM_SOURCE_DIR);
  CHECK(refused.code == 1);
  CHECK_THAT(refused.err, Contains("error: Answers can't be kept to a rule: this build is without "
                                   "vlm_xgrammar.so (scripts/setup && scripts/build make it"));
  CHECK(run_shell(program, VLM_SOURCE_DIR).code == 0);
}

TEST_CASE("an answer that is cut is told, and what can't be kept is refused") {
  const ProgramResult cut =
      run_vlm("generate" + kModel + kAsk + "--max-new-tokens 3 --json-schema " + kSchema);
  CHECK(cut.code == 0);
  CHECK_THAT(cut.err, Contains("warning: the answer was cut before it was whole"));
  const auto refusal = [&](const std::string& options) {
    const ProgramResult run = run_vlm("generate" + kModel + kAsk + options);
    CHECK(run.code != 0);
    return run.err;
  };
  CHECK_THAT(refusal(R"(--json-schema '{"not": {}}')"),
             Contains("error: --json-schema: /: the schema can't be kept exactly: got 'not'"));
  CHECK_THAT(refusal("--json-schema /nowhere.json"), Contains("/nowhere.json"));
  CHECK_THAT(refusal("--regex '(?=a)'"), Contains("--regex: pattern '(?=a)': unsupported group"));
  CHECK_THAT(refusal("--regex a --json-object"), Contains("excludes"));
  CHECK_THAT(refusal("--regex a --choices a,b"), Contains("excludes"));
  CHECK_THAT(refusal("--regex a --stop b"), Contains("excludes"));
}

TEST_CASE("rows have the value, and tables a column for each property") {
  const ScratchFolder folder;
  const std::string ask = "vqa examples/pictures" + kModel +
                          "--question 'what shape?' --max-new-tokens 90 --json-schema " + kSchema;
  const std::string jsonl = folder.at("rows.jsonl");
  const ProgramResult run = run_vlm(ask + " --output " + jsonl);
  CHECK((run.code == 0 || run.code == 3));
  int whole = 0;
  for (const OrderedJson& row : rows_of(jsonl)) {
    if (row["finish_reason"] == "stop") {
      check_shape(row["json"]);
      CHECK(row["json"] == OrderedJson::parse(row["text"].get<std::string>()));
      CHECK_FALSE(row.contains("error"));
      ++whole;
    } else {
      CHECK(row["json"].is_null());
      CHECK_THAT(row["error"].get<std::string>(), Contains("was cut before it was whole"));
      CHECK_FALSE(row["text"].get<std::string>().empty());
    }
  }
  CHECK(whole > 0);
  run_vlm(ask + " --output " + folder.at("rows.csv"));
  CHECK_THAT(read_file(folder.at("rows.csv")), Contains(",text,json,json.shape,json.n,"));
  // Another schema is another run.
  const ProgramResult other =
      run_vlm("vqa examples/pictures" + kModel +
              "--question 'what shape?' --max-new-tokens 90 --regex a " + "--output " + jsonl);
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Contains("--json-schema"));
}

TEST_CASE("a run that is killed goes on, and ends with the answers of one that wasn't") {
  const ScratchFolder folder;
  const std::string schema = folder.write(
      "s.json", R"({"prefixItems": [{"enum": ["a", "b"]}, {"type": "integer", "maximum": 99}],)"
                R"( "items": false, "minItems": 2})");
  const std::string run = "vqa examples/pictures" + kModel + "--question What? --question Where? " +
                          "--max-new-tokens 40 --num-beams 2 --batch-size 2 --json-schema " +
                          schema + " --output ";
  const std::string uncut = folder.at("uncut.jsonl"), cut = folder.at("cut.jsonl");
  run_vlm(run + uncut);
  std::mt19937 random(3);
  int kills = 0;
  while (kills < 4 && kill_at_random(run + cut, cut, random)) ++kills;
  run_vlm(run + cut);
  CHECK(kills > 0);
  const auto wanted = rows_of(uncut), rows = rows_of(cut);
  REQUIRE(rows.size() == 48);
  REQUIRE(wanted.size() == 48);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CHECK(rows[i]["id"] == wanted[i]["id"]);
    CHECK(rows[i]["text"] == wanted[i]["text"]);
    CHECK(rows[i]["json"] == wanted[i]["json"]);
  }
}

TEST_CASE("rows, requests and questions say what their own answers look like") {
  const ScratchFolder folder;
  const std::string format =
      R"({"type": "json_schema", "json_schema": {"schema": {"properties": {"z": {"type": "null"}, )"
      R"("a": {"const": 1.50}}, "required": ["a", "z"]}}})";
  folder.write(
      "rows.jsonl",
      R"({"id": "one", "question": "what?", "response_format": )" + format + "}\n" +
          R"({"id": "two", "question": "what?", "structured_outputs": {"regex": "x{2}"}})" + "\n" +
          R"({"id": "three", "question": "what?"})" + "\n" +
          R"({"id": "four", "question": "what?", "response_format": {"type": "json_schema",)" +
          R"( "json_schema": {"schema": {"not": {}}}}})" + "\n" +
          R"({"id": "five", "question": "what?", "structured_outputs": {"xml": 1}})" + "\n");
  const std::string out = folder.at("out.jsonl");
  CHECK(run_vlm("vqa " + folder.at("rows.jsonl") + kModel + "--max-new-tokens 60 --output " + out)
            .code == 3);
  const auto rows = rows_of(out);
  REQUIRE(rows.size() == 5);
  CHECK(rows[0]["json"] == OrderedJson({{"z", nullptr}, {"a", 1.5}}));
  CHECK(rows[1]["text"] == "xx");
  CHECK(rows[1]["json"].is_null());
  CHECK_FALSE(rows[2].contains("error"));
  CHECK_THAT(rows[3]["error"].get<std::string>(),
             Contains("response_format: /: the schema can't be kept exactly: got 'not'"));
  CHECK_THAT(rows[4]["error"].get<std::string>(),
             Contains("unsupported kind of structured output: got xml"));

  folder.write(
      "batch.jsonl",
      R"({"custom_id": "one", "body": {"messages": [{"role": "user", "content": "what?"}], )"
      R"("max_tokens": 60, "response_format": )" +
          format + "}}\n");
  const std::string results = folder.at("results.jsonl");
  CHECK(run_vlm("vqa " + folder.at("batch.jsonl") + kModel + "--output-format openai --output " +
                results)
            .code == 0);
  const OrderedJson choice = rows_of(results).at(0)["response"]["body"]["choices"][0];
  CHECK(choice["finish_reason"] == "stop");
  CHECK(OrderedJson::parse(choice["message"]["content"].get<std::string>()) ==
        OrderedJson({{"z", nullptr}, {"a", 1.5}}));

  folder.write("questions.jsonl",
               R"({"id": "q", "question": "which?", "structured_outputs": {"regex": "[ab]"}})"
               "\n");
  const std::string asked = folder.at("asked.jsonl");
  CHECK(run_vlm("vqa examples/pictures/shape_038.png" + kModel + "--questions " +
                folder.at("questions.jsonl") + " --output " + asked)
            .code == 0);
  CHECK(rows_of(asked).at(0)["text"].get<std::string>().size() == 1);
}

}  // namespace
}  // namespace vlm
