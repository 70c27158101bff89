// Runs that could harm something: outputs that are inputs, refused options, damaged outputs, odd
// names, results that nobody can read.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kTail =
    " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 --max-new-tokens 2 "
    "--log-level warning ";

std::vector<OrderedJson> rows_of(const fs::path& path) {
  std::vector<OrderedJson> rows;
  std::istringstream in(load_text(path));
  for (std::string line; std::getline(in, line);) rows.push_back(OrderedJson::parse(line));
  return rows;
}

// The rows, fractions left out: their last digits depend on what was computed beside them.
std::string masked_rows(const fs::path& path) {
  static const std::regex fraction("-?[0-9]+\\.[0-9]+(e-?[0-9]+)?");
  return std::regex_replace(load_text(path), fraction, "#");
}

// Pictures under these names below the folder "in".
void add_pictures(const ScratchFolder& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    folder.write("in/" + name, load_text(fixture("pictures/square.png")));
  }
}

TEST_CASE("no output replaces what the run reads, with --restart neither") {
  const ScratchFolder folder;
  add_pictures(folder, {"a.png", "b.png"});
  folder.write("rows.jsonl", R"({"id": "1", "image": "in/a.png", "question": "What?"})"
                             "\n");
  folder.write("questions.jsonl", R"({"question": "Who?"})"
                                  "\n");
  folder.write("choices.txt", "yes\nno\n");
  fs::copy(fixture("smolvlm_tiny"), folder.path() / "model");
  fs::create_symlink("in/a.png", folder.path() / "link.jsonl");
  fs::create_hard_link(folder.path() / "rows.jsonl", folder.path() / "twin.jsonl");
  const auto refuse = [&](const std::string& command, const std::string& output,
                          const std::string& role) {
    INFO(command << " to " << output);
    const std::string before = load_text(folder.path() / output);
    const auto names = folder.names();
    for (const char* restart : {"", " --restart"}) {
      const ProgramResult result = run_vlm(command + " --output " + folder.at(output) + restart);
      CHECK(result.code == 1);
      CHECK_THAT(result.err, Contains("the output would replace " + role));
    }
    CHECK(load_text(folder.path() / output) == before);
    CHECK(folder.names() == names);
  };
  const std::string pictures = "vqa " + folder.at("in") + kTail + "--question What?";
  const std::string rows = "vqa " + folder.at("rows.jsonl") + kTail;
  refuse(pictures, "in/a.png", "an input");
  folder.write("set/a.jsonl", R"({"question": "What?", "answer": "this"})"
                              "\n");
  refuse("evaluate '" + folder.at("set/*.jsonl") + "'" + kTail, "set/a.jsonl", "an input");
  refuse(pictures, "link.jsonl", "an input");
  refuse(rows, "rows.jsonl", "an input");
  refuse(rows, "twin.jsonl", "an input");
  refuse(rows, "in/a.png", "an input");
  refuse("vqa " + folder.at("in") + kTail + "--questions " + folder.at("questions.jsonl"),
         "questions.jsonl", "a file that the command line names");
  refuse(pictures + " --choices-file " + folder.at("choices.txt"), "choices.txt",
         "a file that the command line names");
  refuse("caption " + folder.at("in") + " --device cpu --model " + folder.at("model"),
         "model/model.safetensors", "a file of the model");
  refuse("evaluate " + folder.at("rows.jsonl") + kTail, "rows.jsonl", "an input");
  folder.write("list", folder.at("in/a.png") + "\n");
  const ProgramResult listed =
      run_shell(std::string("'") + VLM_BINARY + "' caption -" + kTail + "--restart --output " +
                    folder.at("list") + " < " + folder.at("list"),
                VLM_SOURCE_DIR);
  CHECK(listed.code == 1);
  CHECK_THAT(listed.err, Contains("would replace the file that standard input reads"));
  CHECK(load_text(folder.path() / "list") == folder.at("in/a.png") + "\n");
}

TEST_CASE("a refused command leaves nothing, and the corrected one runs") {
  const ScratchFolder folder;
  add_pictures(folder, {"a.png"});
  const auto names = folder.names();
  const std::string command = "vqa " + folder.at("in") + " --question What? --output ";
  for (const std::string& wrong :
       {std::string(" --model /nowhere"), kTail + "--choices-file /nowhere",
        kTail + "--num-beams 0", kTail + "--dtype float8", kTail + "--adapter /nowhere",
        kTail + "--shard 3/2"}) {
    INFO(wrong);
    CHECK(run_vlm(command + folder.at("out.jsonl") + wrong).code != 0);
    CHECK(folder.names() == names);
  }
  for (const char* output : {"/dev/null", "/dev/full"}) {
    const ProgramResult result = run_vlm(command + output + kTail);
    CHECK(result.code == 1);
    CHECK_THAT(result.err, Contains(std::string(output) + ": not a regular file"));
    CHECK_FALSE(fs::exists(std::string(output) + ".journal"));
  }
  CHECK_THAT(run_vlm(command + "/dev/stdout" + kTail).err,
             Contains("the output would replace the file that standard output goes to"));
  CHECK(run_vlm(command + folder.at("out.jsonl") + kTail).code == 0);
}

TEST_CASE("rows that were changed by hand are mended by the same command") {
  const ScratchFolder folder;
  add_pictures(folder, {"a.png", "b.png", "c.png", "d.png", "e.png", "f.png"});
  const std::string command = "vqa " + folder.at("in") + kTail +
                              "--batch-size 1 --question Who? --question Where? --output ";
  for (const std::string name : {"out.jsonl", "out.csv"}) {
    const fs::path output = folder.path() / name;
    REQUIRE(run_vlm(command + output.string()).code == 0);
    const std::string whole = masked_rows(output);
    std::vector<std::string> lines;
    std::istringstream in(load_text(output));
    for (std::string line; std::getline(in, line);) lines.push_back(line + "\n");
    const auto without = [&](std::size_t first, std::size_t count) {
      std::string text;
      for (std::size_t i = 0; i < lines.size(); ++i) {
        if (i < first || i >= first + count) text += lines[i];
      }
      return text;
    };
    for (const std::string& damaged :
         {without(1, 1), without(3, 4), without(6, 100), without(2, 1) + lines[2], std::string()}) {
      std::ofstream(output, std::ios::binary) << damaged;
      const ProgramResult again = run_vlm(command + output.string());
      CHECK(again.code == 0);
      CHECK_THAT(again.err, Contains("not as the last run left it"));
      CHECK(masked_rows(output) == whole);
      CHECK(run_vlm(command + output.string()).err.empty());
    }
    fs::remove(output);
    CHECK(run_vlm(command + output.string()).code == 0);
    CHECK(masked_rows(output) == whole);
    if (name == "out.jsonl") CHECK_FALSE(fs::exists(output.string() + ".set-aside"));
  }
}

TEST_CASE("every picture has a .txt of its own, also under names that make it hard") {
  const std::string longest = std::string(247, 'n') + ".png";  // its .txt has 251 bytes
  const ScratchFolder folder;
  add_pictures(folder, {"a.jpg", "a.png", "b.png", "c.png", "c.png.png", longest, "odd\xff.png"});
  const std::string command =
      "caption " + folder.at("in") + kTail + "--output-format txt --output " + folder.at("o.jsonl");
  CHECK(run_vlm(command).code == 0);
  std::vector<std::string> texts;
  for (const auto& entry : fs::directory_iterator(folder.path() / "in")) {
    if (entry.path().extension() == ".txt") texts.push_back(entry.path().filename());
  }
  std::sort(texts.begin(), texts.end());
  CHECK(texts == std::vector<std::string>{"a.jpg.txt", "a.png.txt", "b.txt", "c.png.txt", "c.txt",
                                          std::string(247, 'n') + ".txt", "odd\xff.txt"});
  const std::string text = load_text(folder.path() / "in/b.txt");
  fs::remove(folder.path() / "in/b.txt");
  const ProgramResult again = run_vlm(command);
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains("1 .txt files were gone and are written again"));
  CHECK(load_text(folder.path() / "in/b.txt") == text);

  // Two questions: a name that is too long, and rows about one picture.
  const std::string vqa = " --output-format txt --question Who? --question Where? --output ";
  CHECK(run_vlm("vqa " + folder.at("in/" + longest) + kTail + vqa + folder.at("q.jsonl")).code ==
        0);
  const std::string too_long = std::string(251, 'm') + ".png";
  folder.write("in/" + too_long, load_text(fixture("pictures/square.png")));
  CHECK(run_vlm("vqa " + folder.at("in") + kTail + vqa + folder.at("r.jsonl") + " --overwrite")
            .code == 3);
  std::size_t failed = 0;
  for (const OrderedJson& row : rows_of(folder.path() / "r.jsonl")) {
    if (!row.contains("error")) continue;
    ++failed;
    CHECK_THAT(row["error"].get<std::string>(), Contains("mmm") && Contains("File name too long"));
  }
  CHECK(failed == 2);
  folder.write("twice.jsonl", R"({"id": "1", "image": "in/b.png", "question": "Who?"})"
                              "\n"
                              R"({"id": "2", "image": "in/b.png", "question": "What?"})"
                              "\n");
  CHECK(run_vlm("vqa " + folder.at("twice.jsonl") + kTail +
                "--output-format txt --overwrite --output " + folder.at("t.jsonl"))
            .code == 3);
  CHECK_THAT(load_text(folder.path() / "t.jsonl"), Contains("several rows would write one .txt"));
}

TEST_CASE("names that aren't UTF-8 stay apart in every format, journal and shard") {
  const ScratchFolder folder;
  add_pictures(folder, {"a\xfe.png", "a\xff.png", "a\\xff.png"});
  const std::vector<std::string> wanted = {folder.at("in/a\\x5cxff.png"),
                                           folder.at("in/a\\xfe.png"), folder.at("in/a\\xff.png")};
  const std::string command = "vqa " + folder.at("in") + kTail + "--question {name}? ";
  for (const std::string kind : {"jsonl", "openai", "csv"}) {
    const std::string output = folder.at("o." + kind);
    const std::string run = command + "--output-format " + kind + " --output " + output;
    CHECK(run_vlm(run).code == 0);
    CHECK(run_vlm(run).err.empty());  // nothing is asked again
    if (kind == "csv") {
      for (const std::string& id : wanted)
        CHECK_THAT(load_text(output), Contains("\r\n" + id + ","));
      continue;
    }
    std::vector<std::string> ids;
    for (const OrderedJson& row : rows_of(output)) {
      ids.push_back(row[kind == "jsonl" ? "id" : "custom_id"]);
      if (kind != "jsonl") continue;
      CHECK(row["path"] == row["id"]);
      CHECK_THAT(wanted[ids.size() - 1], Contains(row["question"].get<std::string>().substr(0, 5)));
    }
    CHECK(ids == wanted);
  }
  for (const char* shard : {"0/2", "1/2"}) {
    REQUIRE(run_vlm(command + "--shard " + shard + " --output " + folder.at("s.jsonl")).code == 0);
  }
  CHECK(run_vlm("gather " + folder.at("s.jsonl") + " --log-level warning").code == 0);
  CHECK(rows_of(folder.path() / "s.jsonl").size() == 3);
}

TEST_CASE("gathering replaces no shard and nothing that isn't gathered") {
  const ScratchFolder folder;
  add_pictures(folder, {"a.png", "b.png"});
  const std::string output = folder.at("s.jsonl");
  for (const char* shard : {"0/2", "1/2"}) {
    REQUIRE(
        run_vlm("caption " + folder.at("in") + kTail + "--shard " + shard + " --output " + output)
            .code == 0);
  }
  const std::string part = load_text(folder.path() / "s.shard-0-of-2.jsonl");
  for (const bool is_link : {true, false}) {
    if (is_link) {
      fs::create_symlink("s.shard-0-of-2.jsonl", output);
    } else {
      fs::create_hard_link(folder.path() / "s.shard-0-of-2.jsonl", output);
    }
    const ProgramResult result = run_vlm("gather " + output);
    CHECK(result.code == 1);
    CHECK_THAT(result.err, Contains("the output would replace a file of a shard"));
    CHECK(load_text(folder.path() / "s.shard-0-of-2.jsonl") == part);
    fs::remove(output);
  }
  folder.write("s.jsonl", "my notes\n");
  const ProgramResult refused = run_vlm("gather " + output);
  CHECK(refused.code == 1);
  CHECK_THAT(refused.err, Contains("the output is there already, with lines that no shard has "
                                   "(--overwrite replaces it, or gather into another name)"));
  CHECK(load_text(output) == "my notes\n");
  CHECK(run_vlm("gather " + output + " --overwrite").code == 0);
  CHECK(run_vlm("gather " + output).code == 0);
  CHECK(rows_of(output).size() == 2);
}

TEST_CASE("results that can't be written are an error, and a closed pipe ends quietly") {
  const ScratchFolder folder;
  add_pictures(folder, {"a.png"});
  folder.write("data.jsonl",
               R"({"id": "1", "image": "in/a.png", "question": "What?", "answer": "x"})"
               "\n");
  const std::string model = " --model tests/fixtures/smolvlm_tiny --device cpu --max-new-tokens 2 ";
  for (const std::string& command :
       {std::string("--version"), std::string("caption --help"), std::string("--help"),
        "generate --prompt What?" + model, "generate --prompt What? --format json" + model,
        std::string("inspect tests/fixtures/smolvlm_tiny"),
        std::string("inspect examples/clips/left.mp4"),
        "evaluate " + folder.at("data.jsonl") + model + "--output " + folder.at("e.jsonl"),
        std::string("inspect-data configs/format_llava.json -n 1")}) {
    INFO(command);
    const std::string program = std::string("'") + VLM_BINARY + "' " + command;
    const ProgramResult full = run_shell(program + " > /dev/full", VLM_SOURCE_DIR);
    CHECK(full.code == 1);
    CHECK_THAT(full.err, Contains("error: can't write to standard output: got No space left"));
    const ProgramResult closed = run_shell(program + " >&-", VLM_SOURCE_DIR);
    CHECK(closed.code == 1);
    CHECK_THAT(closed.err, Contains("error: can't write to standard output: got Bad file"));
    if (command.find("--help") != std::string::npos || command[0] == '-') continue;
    // With the signal ignored, as under some supervisors, the write tells it.
    for (const char* trap : {"", "trap '' PIPE; "}) {
      const ProgramResult closed_pipe =
          run_shell(std::string("exec 4> >(:); sleep 0.1; set +e; ") + trap + program +
                        " --log-level off >&4; exit $?",
                    VLM_SOURCE_DIR);
      CHECK(closed_pipe.code == 141);
      CHECK(closed_pipe.err.empty());
    }
  }
}

}  // namespace
}  // namespace vlm
