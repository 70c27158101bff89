// Runs over folders as their users meet them: killed, sharded, on a full disk, from every input.
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <sstream>
#include <thread>
#include <vector>

#include "tests/e2e/killed_run.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kModel = " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 ";

// `count` pictures under different names; copies are links.
void fill(const fs::path& folder, int count) {
  fs::create_directories(folder);
  std::vector<fs::path> pictures;
  for (const auto& entry : fs::directory_iterator(fs::path(VLM_SOURCE_DIR) / "examples/pictures")) {
    if (entry.path().extension() == ".png") pictures.push_back(entry.path());
  }
  std::sort(pictures.begin(), pictures.end());
  for (int i = 0; i < count; ++i) {
    fs::copy_file(pictures[static_cast<std::size_t>(i) % pictures.size()],
                  folder / ("p" + std::to_string(1000 + i) + ".png"));
  }
}

std::vector<std::string> sorted_lines(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::sort(lines.begin(), lines.end());
  return lines;
}

// The rows, fractions left out: their last digits depend on what was computed beside them.
std::string read_rows(const fs::path& path) {
  static const std::regex fraction("-?[0-9]+\\.[0-9]+(e-?[0-9]+)?");
  return std::regex_replace(read_file(path), fraction, "#");
}

TEST_CASE("killed at 50 random moments, a run ends with the rows of one that wasn't") {
  const ScratchFolder folder;
  fill(folder.path() / "in", 160);
  std::ofstream(folder.path() / "in/p1020.png") << "broken";
  std::mt19937 random(11);
  int kills = 0;
  struct Case {
    const char *name, *options;
    int kills;
  };
  for (const Case& each : {Case{"input.jsonl", "--order input", 17},
                           Case{"completion.jsonl", "--order completion", 17},
                           Case{"input.csv", "--order input", 16}}) {
    INFO(each.name);
    const std::string command = "vqa " + (folder.path() / "in").string() + kModel +
                                "--question Who? --question Where? --max-new-tokens 2 "
                                "--batch-size 1 " +
                                each.options + " --output ";
    const fs::path whole = folder.path() / "whole" / each.name;
    fs::create_directories(whole.parent_path());
    REQUIRE(run_vlm(command + whole.string()).code == 3);
    const fs::path output = folder.path() / each.name;
    for (int i = 0; i < each.kills; ++i) {
      kills += kill_at_random(command + output.string(), output, random) ? 1 : 0;
    }
    REQUIRE(run_vlm(command + output.string()).code == 3);
    const std::string wanted = read_rows(whole), got = read_rows(output);
    CHECK(sorted_lines(got) == sorted_lines(wanted));
    if (std::string(each.options) == "--order input") CHECK(got == wanted);
    CHECK(std::count(got.begin(), got.end(), '\n') >= 320);
  }
  CHECK(kills == 50);
}

TEST_CASE("a full disk ends the run cleanly, and it goes on when there is room") {
  const ScratchFolder folder;
  fill(folder.path() / "in", 60);
  const std::string output = (folder.path() / "rows.jsonl").string();
  const std::string command = std::string("'") + VLM_BINARY + "' caption " +
                              (folder.path() / "in").string() + kModel +
                              "--max-new-tokens 2 --batch-size 2 --output ";
  // A limit of 4 KiB a file stands for the full disk; ignoring its signal makes it an error.
  const ProgramResult full =
      run_shell("trap '' XFSZ; ulimit -f 4; " + command + output, VLM_SOURCE_DIR);
  CHECK(full.code == 1);
  CHECK_THAT(full.err, Contains("error: " + output + ": can't write the file: got File too large"));
  REQUIRE(run_shell(command + output, VLM_SOURCE_DIR).code == 0);
  const std::string whole = (folder.path() / "whole.jsonl").string();
  REQUIRE(run_shell(command + whole, VLM_SOURCE_DIR).code == 0);
  CHECK(read_rows(output) == read_rows(whole));
}

TEST_CASE("shards by torchrun's and Slurm's variables, gathered, are one run") {
  const ScratchFolder folder;
  fill(folder.path() / "in", 20);
  const std::string command = "vqa " + (folder.path() / "in").string() + kModel +
                              "--question Who? --question Where? --max-new-tokens 2 "
                              "--batch-size 1 --output ";
  const fs::path whole = folder.path() / "whole.jsonl";
  REQUIRE(run_vlm(command + whole.string()).code == 0);
  const auto run_with = [&](const std::string& variables, const fs::path& output) {
    return run_shell("env " + variables + " '" + VLM_BINARY + "' " + command + output.string(),
                     VLM_SOURCE_DIR);
  };
  const fs::path torch = folder.path() / "torch.jsonl";
  for (const char* rank : {"0", "2"}) {
    REQUIRE(run_with(std::string("WORLD_SIZE=3 RANK=") + rank, torch).code == 0);
  }
  const ProgramResult early = run_vlm("gather " + torch.string());
  CHECK(early.code == 3);
  CHECK_THAT(early.err, Contains("missing: shard 1 of 3: no file") && Contains("nothing written"));
  const ProgramResult last = run_with("WORLD_SIZE=3 RANK=1", torch);
  CHECK_THAT(last.err, Contains("shard 1 of 3, by RANK and WORLD_SIZE"));
  CHECK(run_vlm("gather " + torch.string()).code == 0);
  CHECK(read_rows(torch) == read_rows(whole));

  const fs::path slurm = folder.path() / "slurm.jsonl";
  for (const char* task : {"1", "2", "3"}) {
    const std::string array =
        "SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=3 SLURM_ARRAY_TASK_COUNT=3 "
        "SLURM_ARRAY_TASK_ID=";
    REQUIRE(run_with(array + task, slurm).code == 0);
  }
  CHECK(run_vlm("gather " + slurm.string()).code == 0);
  CHECK(read_rows(slurm) == read_rows(whole));
}

TEST_CASE("a list on stdin, an OpenAI batch file, and errors of the command line") {
  const ScratchFolder folder;
  fill(folder.path() / "in", 2);
  const std::string out = (folder.path() / "rows.jsonl").string();
  const std::string tail = kModel + "--max-new-tokens 2 --output " + out;
  const ProgramResult listed =
      run_shell("printf '%s\\n' " + (folder.path() / "in").string() + "/*.png /nowhere.png | '" +
                    VLM_BINARY + "' caption - " + tail,
                VLM_SOURCE_DIR);
  CHECK(listed.code == 3);
  CHECK(sorted_lines(read_file(out)).size() == 3);
  CHECK_THAT(read_file(out), Contains("\"error\":\"/nowhere.png: can't open the file"));

  folder.write("batch.jsonl",
               R"({"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": )"
               R"({"model": "m", "max_tokens": 1, "temperature": 0, "messages": [{"role": "user", )"
               R"("content": [{"type": "image_url", "image_url": {"url": "in/p1000.png"}}, )"
               R"({"type": "text", "text": "What?"}]}]}})"
               "\n"
               R"({"custom_id": "two", "body": {"messages": [], "logprobs": true}})"
               "\n");
  const std::string results = (folder.path() / "results.jsonl").string();
  const ProgramResult batch = run_vlm("vqa " + folder.at("batch.jsonl") + kModel +
                                      "--output-format openai --output " + results);
  CHECK(batch.code == 3);
  const auto rows = read_file(results);
  const Json first = Json::parse(rows.substr(0, rows.find('\n')));
  CHECK(first["custom_id"] == "one");
  CHECK(first["response"]["body"]["model"] == "m");
  CHECK(first["response"]["body"]["choices"][0]["finish_reason"] == "length");
  CHECK(first["response"]["body"]["usage"]["completion_tokens"] == 1);
  CHECK_THAT(rows, Contains("body: unsupported field of the request: got logprobs"));

  const ProgramResult nothing = run_vlm("vqa examples/pictures" + kModel + "--output " + out);
  CHECK(nothing.code == 1);
  CHECK_THAT(nothing.err, Contains("error: no question (give --question or --questions"));
  const ProgramResult both =
      run_vlm("caption examples/pictures" + kModel + "--restart --retry-errors --output " + out);
  CHECK(both.code == 2);
}

}  // namespace
}  // namespace vlm
