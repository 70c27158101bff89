// `--output x.parquet`: killed, refused, sharded, learned from.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <sstream>
#include <vector>

#include "data/formats/row_source.h"
#include "tests/support/catch.h"
#include "tests/support/child_process.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kModel =
    " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 --max-new-tokens 2 ";

void fill(const ScratchFolder& folder, int count) {
  for (int i = 0; i < count; ++i) {
    const std::string name = i % 2 == 0 ? "square" : "wide";
    folder.write("in/p" + std::to_string(1000 + i) + ".png",
                 load_text(fixture("pictures/" + name + ".png")));
  }
}

std::vector<Json> table_rows(const fs::path& path) {
  const auto source = data::open_rows(path);
  std::vector<Json> rows;
  for (std::int64_t i = 0; i < source->size(); ++i) rows.push_back(source->at(i).columns);
  return rows;
}

// The rows that a JSONL output has, each with all columns of the table.
std::vector<Json> jsonl_rows(const fs::path& path, const std::vector<Json>& like) {
  std::vector<Json> rows;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) {
    Json row = Json::parse(line);
    for (const auto& [name, value] : like.at(0).items()) row.emplace(name, Json());
    rows.push_back(std::move(row));
  }
  return rows;
}

// Fractions left out: their last digits depend on what was computed beside them.
std::string masked(const std::vector<Json>& rows) {
  static const std::regex fraction("-?[0-9]+\\.[0-9]+(e-?[0-9]+)?");
  return std::regex_replace(Json(rows).dump(), fraction, "#");
}

std::vector<std::string> words_of(const std::string& command) {
  std::istringstream in(command);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

TEST_CASE("a table holds the rows that JSONL has, in their order, from every command") {
  const ScratchFolder folder;
  fill(folder, 4);
  folder.write("in/p1002.png", "broken");
  folder.write("rows.jsonl",
               R"({"image": "in/p1000.png", "question": "What?", "answer": "a cat", "n": 1.5})"
               "\n"
               R"({"image": "in/p1001.png", "question": "Who?", "answers": ["a", "b"], "n": 2.5})"
               "\n");
  const std::string rows = folder.at("rows.jsonl"), in = folder.at("in");
  const std::vector<std::string> commands = {
      "caption " + in,
      "vqa " + in + " --question What? --question Who?",
      "vqa " + rows + " --choices yes --choices no --abstain-below 0.9",
      "vqa " + in + " --question What? --num-beams 2 --num-return-sequences 2",
      "video examples/clips --question Where?",
      "video examples/clips --question Where? --ground",
      "evaluate " + rows};
  for (const std::string& command : commands) {
    INFO(command);
    std::string options = kModel;
    if (command.ends_with("--ground")) options.erase(options.find("--max-new-tokens"));
    const ProgramResult whole = run_vlm(command + options + "--output " + folder.at("a.jsonl"));
    const ProgramResult run = run_vlm(command + options + "--output " + folder.at("a.parquet"));
    INFO(run.err);
    CHECK(run.code == whole.code);
    CHECK(run.out == whole.out);  // of evaluate
    CHECK_THAT(run.err, Contains("wrote " + folder.at("a.parquet")));
    const std::vector<Json> table = table_rows(folder.at("a.parquet"));
    REQUIRE_FALSE(table.empty());
    std::vector<Json> wanted = jsonl_rows(folder.at("a.jsonl"), table);
    for (Json& row : wanted) {  // one answer beside several is a list, too
      const bool is_list = row.contains("answer") && table[0]["answer"].is_array();
      if (is_list && row["answer"].is_string()) row["answer"] = {row["answer"]};
    }
    CHECK(masked(table) == masked(wanted));
    for (const char* name : {"a.jsonl", "a.jsonl.journal", "a.parquet", "a.parquet.jsonl",
                             "a.parquet.jsonl.journal"}) {
      CHECK(fs::remove(folder.at(name)));
    }
  }
}

TEST_CASE("killed at any moment, a run ends with the whole table") {
  const ScratchFolder folder;
  fill(folder, 60);
  folder.write("in/p1020.png", "broken");
  const std::string command =
      "vqa " + folder.at("in") + kModel + "--question Who? --question Where? --batch-size 1 ";
  REQUIRE(run_vlm(command + "--output " + folder.at("whole.parquet")).code == 3);
  const std::vector<Json> whole = table_rows(folder.at("whole.parquet"));
  REQUIRE(whole.size() == 120);
  const std::string output = folder.at("cut.parquet");
  std::mt19937 random(5);
  int kills = 0;
  for (int i = 0; i < 12; ++i) {
    ChildProcess child(words_of(command + "--output " + output), folder.at("log"));
    child.is_running_after(std::chrono::milliseconds(random() % 900 + 100));
    child.kill(SIGKILL);
    kills += child.wait() == 128 + SIGKILL ? 1 : 0;
    if (fs::exists(output)) CHECK(masked(table_rows(output)) == masked(whole));
  }
  CHECK(kills > 0);
  REQUIRE(run_vlm(command + "--output " + output).code == 3);
  CHECK(masked(table_rows(output)) == masked(whole));
  // Killed while the table is written: what is left is replaced.
  folder.write("cut.parquet.jsonl.journal.table", "half a table");
  fs::remove(output);
  REQUIRE(run_vlm(command + "--output " + output).code == 3);
  CHECK(masked(table_rows(output)) == masked(whole));
  CHECK(folder.names() == std::vector<std::string>{"cut.parquet", "cut.parquet.jsonl",
                                                   "cut.parquet.jsonl.journal", "in", "log",
                                                   "whole.parquet", "whole.parquet.jsonl",
                                                   "whole.parquet.jsonl.journal"});
}

TEST_CASE("rows are done again as the options say, and the table follows") {
  const ScratchFolder folder;
  fill(folder, 3);
  folder.write("in/p1001.png", "broken");
  const std::string command =
      "caption " + folder.at("in") + kModel + "--output " + folder.at("a.parquet");
  CHECK(run_vlm(command).code == 3);
  CHECK(table_rows(folder.at("a.parquet"))[1]["error"].is_string());
  folder.write("in/p1001.png", load_text(fixture("pictures/wide.png")));
  CHECK(run_vlm(command).code == 3);  // nothing to do; the table is written again
  CHECK(run_vlm(command + " --retry-errors").code == 0);
  std::vector<Json> rows = table_rows(folder.at("a.parquet"));
  REQUIRE(rows.size() == 3);
  CHECK(rows[1]["error"].is_null());
  CHECK(rows[1]["text"].is_string());
  // Other options, as for every output.
  const ProgramResult other = run_vlm(command + " --prompt Why?");
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Contains("the rows already there were made with other options: --prompt"));
  CHECK(run_vlm(command + " --prompt Why? --allow-changes").code == 0);
  CHECK(run_vlm(command + " --prompt Why?").code == 0);
  fs::remove(folder.at("a.parquet"));
  CHECK(run_vlm(command + " --prompt Why?").code == 0);
  CHECK(table_rows(folder.at("a.parquet")).size() == 3);
}

TEST_CASE("a table that isn't the run's own, or an input, is refused before anything is made") {
  const ScratchFolder folder;
  fill(folder, 1);
  const std::string command = "caption " + folder.at("in") + kModel + "--output ";
  const auto refuse = [&](const std::string& arguments, const std::string& error) {
    const auto names = folder.names();
    const ProgramResult run = run_vlm(arguments);
    CHECK(run.code == 1);
    CHECK_THAT(run.err, Contains(error));
    CHECK(folder.names() == names);
  };
  const std::string foreign = load_text(fixture("tables/chartqa.parquet"));
  const std::string output = folder.write("a.parquet", foreign);
  refuse(command + output, output +
                               ": the output is there already, and is of another run (choose "
                               "another --output, or --restart to replace it)");
  CHECK(read_file(output) == foreign);
  refuse("vqa " + output + kModel + "--restart --output " + output,
         "the output would replace an input");
  refuse("evaluate " + output + kModel + "--restart --output " + output,
         "the output would replace an input");
  CHECK(read_file(output) == foreign);
  refuse(command + folder.at("b.parquet") + " --output-format csv",
         "format and name of the output differ: got csv for " + folder.at("b.parquet"));
  CHECK(run_vlm(command + output + " --restart").code == 0);
  CHECK(table_rows(output).size() == 1);
  // A table whose rows are gone is nobody's.
  fs::remove(output + ".jsonl");
  fs::remove(output + ".jsonl.journal");
  refuse(command + output, "the output is there already, and is of another run");
}

TEST_CASE("without the library for tables nothing is done") {
  const ScratchFolder folder;
  fill(folder, 1);
  fs::create_directories(folder.at("none"));
  const std::string begin = "VLM_PLUGIN_DIR='" + folder.at("none") + "' '" + VLM_BINARY + "' ";
  for (const std::string command :
       {"caption " + folder.at("in") + " --model no/such_model --output " + folder.at("a.parquet"),
        "gather " + folder.at("a.parquet")}) {
    const ProgramResult run = run_shell(begin + command, VLM_SOURCE_DIR);
    CHECK(run.code == 1);
    CHECK(run.err ==
          "error: Parquet files can't be written: this build is without vlm_arrow.so "
          "(scripts/setup && scripts/build make it; VLM_PLUGIN_DIR names its folder)\n");
  }
  CHECK(folder.names() == std::vector<std::string>{"in", "none"});
}

TEST_CASE("shards write tables of their own, and gather joins their rows in one") {
  const ScratchFolder folder;
  fill(folder, 5);
  const std::string command = "vqa " + folder.at("in") + kModel +
                              "--question Who? --question Where? --batch-size 1 --output ";
  REQUIRE(run_vlm(command + folder.at("whole.parquet")).code == 0);
  const std::string output = folder.at("rows.parquet");
  REQUIRE(run_vlm(command + output + " --shard 0/2").code == 0);
  CHECK(run_vlm("gather " + output).code == 3);
  CHECK_FALSE(fs::exists(output));
  REQUIRE(run_vlm(command + output + " --shard 1/2").code == 0);
  CHECK(table_rows(folder.at("rows.shard-0-of-2.parquet")).size() == 6);
  REQUIRE(run_vlm("gather " + output).code == 0);
  CHECK(masked(table_rows(output)) == masked(table_rows(folder.at("whole.parquet"))));
  REQUIRE(run_vlm("gather " + output).code == 0);
  // What a shard's table holds, its rows do: it isn't needed.
  fs::remove(folder.at("rows.shard-0-of-2.parquet"));
  fs::remove(output);
  REQUIRE(run_vlm("gather " + output).code == 0);
  CHECK(table_rows(output).size() == 10);
}

TEST_CASE("answers in a table are the next training's data and questions") {
  const ScratchFolder folder;
  fill(folder, 2);
  const std::string output = folder.at("answers.parquet");
  REQUIRE(run_vlm("vqa " + folder.at("in") + kModel + "--question What? --output " + output).code ==
          0);
  const std::string text = table_rows(output)[0]["text"];
  folder.write("c.yaml",
               "model_name_or_path: tests/fixtures/smolvlm_tiny\noutput_dir: " + folder.at("out") +
                   "\ntrain_files: [" + output + "]\nfield_map: {images: path, response: text}\n");
  const ProgramResult shown = run_vlm("inspect-data " + folder.at("c.yaml") + " --threads 1 -n 2");
  INFO(shown.err);
  CHECK(shown.code == 0);
  CHECK_THAT(shown.out, Contains("Wh|at") && Contains("samples: 2, usable 2"));
  REQUIRE(
      run_vlm("finetune " + folder.at("c.yaml") + " max_steps=1 --device cpu --threads 1").code ==
      0);
  const ProgramResult scored = run_vlm("evaluate " + output + kModel +
                                       "--field-map images=path --field-map response=text "
                                       "--output " +
                                       folder.at("again.parquet"));
  INFO(scored.err);
  REQUIRE(scored.code == 0);
  CHECK(Json::parse(scored.out)["accuracy"] == 1.0);
  CHECK(table_rows(folder.at("again.parquet"))[0]["answer"] == text);
}

}  // namespace
}  // namespace vlm
