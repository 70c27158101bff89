// The command line itself: which options there are, wrong usage, what goes to the terminal, and how
// the program finds its libraries.
#include <elf.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/child_process.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kAsk =
    "generate --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 --max-new-tokens 3 ";

using Names = std::set<std::string>;

TEST_CASE("every command has the shared options that it uses, and refuses the others") {
  const Names all = {"--device", "--dtype", "--threads", "--seed"};
  const std::map<std::string, Names> used = {{"generate", all},
                                             {"caption", all},
                                             {"vqa", all},
                                             {"video", all},
                                             {"evaluate", all},
                                             {"finetune", all},
                                             {"plan", all},
                                             {"inspect-data", {"--threads", "--seed"}},
                                             {"inspect", {}},
                                             {"merge", {"--dtype", "--threads"}},
                                             {"export", {"--threads"}},
                                             {"quantize", {"--dtype", "--threads"}},
                                             {"pull", {}},
                                             {"gather", {}},
                                             {"init-config", {}},
                                             {"serve", {"--device", "--dtype", "--threads"}},
                                             {"mcp", {"--device", "--dtype", "--threads"}}};
  for (const auto& [command, options] : used) {
    INFO(command);
    const std::string help = run_vlm(command + " --help").out;
    CHECK_THAT(help, Contains("--log-level") && Contains("--quiet"));
    for (const std::string& option : all) {
      INFO(option);
      const bool is_used = options.count(option) > 0;
      CHECK((help.find("  " + option + " ") != std::string::npos) == is_used);
      if (is_used) continue;
      const ProgramResult refused = run_vlm(command + " x " + option + " 1");
      CHECK(refused.code == 2);
      CHECK(refused.out.empty());
      CHECK_THAT(refused.err, Contains("error: vlm " + command + ": unknown option '" + option));
    }
  }
  CHECK(run_vlm("inspect tests/fixtures/smolvlm_tiny --device cuda:3 --dtype nonsense").code == 2);
}

TEST_CASE("wrong names are named, with the nearest right one") {
  const auto error_of = [](const std::string& arguments) {
    const ProgramResult result = run_vlm(arguments);
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    return result.err;
  };
  CHECK(error_of("foo") == "error: unknown command 'foo'\nvlm --help lists what there is\n");
  CHECK_THAT(error_of("generat --prompt x"), Contains("unknown command 'generat' (did you mean "
                                                      "'generate'?)"));
  CHECK_THAT(error_of("--modle x"), Contains("error: unknown option '--modle'"));
  // Also where something else is wrong, too: here --model is missing.
  CHECK_THAT(error_of("generate --prompt x --modell y"),
             Contains("vlm generate: unknown option '--modell' (did you mean '--model'?)\nvlm "
                      "generate --help lists what there is"));
  CHECK_THAT(error_of("generate --prompt x --imge=y"),
             Contains("unknown option '--imge' (did you mean '--image'?)"));
  CHECK_THAT(error_of("inspect a b"), Contains("vlm inspect: unexpected argument 'b'"));
  CHECK_THAT(error_of("generate --prompt x"), Contains("--model is required"));
  CHECK_THAT(error_of(""), Contains("error: A subcommand is required"));
}

TEST_CASE("bounds are told in plain digits") {
  const auto error_of = [](const std::string& option) {
    return run_vlm(kAsk + "--prompt x --video y " + option).err;
  };
  CHECK_THAT(error_of("--start -1"), Contains("--start: got -1, wanted 0 or more"));
  CHECK_THAT(error_of("--fps 0"), Contains("--fps: got 0, wanted a number above 0"));
  CHECK_THAT(error_of("--fps nan"), Contains("--fps: got nan, wanted a number above 0"));
  CHECK_THAT(error_of("--max-new-tokens 9999999"), Contains("got 9999999, wanted 0 to 1048576"));
  CHECK_THAT(error_of("--threads 5000"), Contains("--threads: got 5000, wanted 0 to 1024"));
}

TEST_CASE("an empty value is a value") {
  const std::string plain = run_vlm(kAsk + "--prompt 'What is this?'").out;
  CHECK(run_vlm(kAsk + "--system= --prompt 'What is this?'").out == plain);
  CHECK(run_vlm(kAsk + "--system '' --prompt 'What is this?'").out == plain);
  const ProgramResult empty = run_vlm(kAsk + "--prompt= --system 'Be brief.'");
  CHECK(empty.code == 0);
  CHECK(empty.out == run_vlm(kAsk + "--prompt '' --system 'Be brief.'").out);
  CHECK(empty.out != plain);
  // Where nothing can't be meant, it is an error.
  for (const std::string option : {"--adapter", "--top-k", "--max-new-tokens", "--image", "--model",
                                   "--choices-file", "--seed", "--log-level"}) {
    for (const std::string& given : {option + "=", option + " ''"}) {
      INFO(given);
      const ProgramResult refused =
          run_vlm("generate --prompt x " + given +
                  (option == "--model" ? "" : " --model tests/fixtures/smolvlm_tiny"));
      CHECK(refused.code == 2);
      CHECK_THAT(refused.err, Contains(option));
    }
  }
  const ScratchFolder folder;
  const std::string caption =
      "caption tests/fixtures/pictures/square.png --max-new-tokens 1 "
      "--model tests/fixtures/smolvlm_tiny --device cpu --output ";
  REQUIRE(run_vlm(caption + folder.at("a.jsonl") + " --prompt=").code == 0);
  REQUIRE(run_vlm(caption + folder.at("b.jsonl")).code == 0);
  const Json asked_nothing = Json::parse(read_file(folder.at("a.jsonl")));
  const Json asked = Json::parse(read_file(folder.at("b.jsonl")));
  CHECK(asked_nothing["mean_logprob"] != asked["mean_logprob"]);
}

TEST_CASE("options without effect are refused") {
  const auto error_of = [](const std::string& options, int code) {
    const ProgramResult result = run_vlm(kAsk + "--prompt x " + options);
    CHECK(result.code == code);
    return result.err;
  };
  CHECK_THAT(error_of("--fps 1", 2), Contains("--fps requires --video"));
  CHECK_THAT(error_of("--choices a,b --temperature 0.5", 2), Contains("excludes"));
  CHECK_THAT(error_of("--choice-score mean", 1),
             Contains("--choice-score: has no effect without choices"));
  CHECK_THAT(error_of("--length-penalty 2", 1),
             Contains("--length-penalty: has no effect without beams"));
  CHECK_THAT(error_of("--early-stopping true", 1), Contains("--early-stopping: has no effect"));
  const ScratchFolder folder;
  const ProgramResult overwrite = run_vlm(
      "caption tests/fixtures/pictures/square.png --model tests/fixtures/smolvlm_tiny "
      "--overwrite --output " +
      folder.at("rows.jsonl"));
  CHECK_THAT(overwrite.err, Contains("--overwrite: there are no .txt files to overwrite"));
  CHECK(folder.names().empty());
}

TEST_CASE("--quiet and --log-level decide what is said, errors included") {
  const ScratchFolder folder;
  const std::string caption =
      "caption tests/fixtures/pictures/square.png --max-new-tokens 1 --restart "
      "--model tests/fixtures/smolvlm_tiny --device cpu --output " +
      folder.at("rows.jsonl");
  CHECK_THAT(run_vlm(caption).err, Contains("items") && Contains("rows written"));
  for (const char* option : {" --quiet", " -q", " --log-level warning", " --log-level off"}) {
    INFO(option);
    const ProgramResult quiet = run_vlm(caption + option);
    CHECK(quiet.code == 0);
    CHECK(quiet.err.empty());
  }
  const std::string wrong = kAsk + "--image /nowhere.png --prompt x ";
  CHECK_THAT(run_vlm(wrong + "--quiet").err, Contains("error: /nowhere.png"));
  CHECK_THAT(run_vlm(wrong + "--log-level error").err, Contains("error: /nowhere.png"));
  const ProgramResult off = run_vlm(wrong + "--log-level off");
  CHECK(off.code == 1);
  CHECK(off.err.empty());
  CHECK(run_vlm(wrong + "--quiet --log-level info").code == 2);
}

TEST_CASE("JSON is asked for in one way by every command") {
  for (const char* option : {" --json", " --format json"}) {
    const Json answer = Json::parse(run_vlm(kAsk + "--prompt x" + option).out);
    CHECK(answer["token_ids"].size() == 3);
    const Json model =
        Json::parse(run_vlm(std::string("inspect tests/fixtures/smolvlm_tiny") + option).out);
    CHECK(model["model_type"] == "smolvlm");
    CHECK(model["parameters"]["total"] == 97264);
  }
  CHECK(run_vlm(kAsk + "--prompt x --json --format text").code == 2);
  CHECK_THAT(run_vlm("plan --help").out, Contains("--json") && Contains("--format"));
  CHECK_THAT(run_vlm("inspect tests/fixtures/smolvlm_tiny --max-frames 2").err,
             Contains("not a video file (--max-frames is for those alone)"));
}

TEST_CASE("odd files in a folder cost a row or a line, and exit code 3, never the run") {
  const ScratchFolder folder;
  fs::create_directories(folder.path() / "in");
  fs::copy_file(fixture("pictures/square.png"), folder.path() / "in/a.png");
  const auto run = [&](const std::string& output) {
    return run_vlm("caption " + folder.at("in") + " --model " + fixture("smolvlm_tiny").string() +
                   " --device cpu --max-new-tokens 1 --output " + folder.at(output));
  };
  const auto count_rows = [&](const std::string& output) {
    const std::string rows = read_file(folder.at(output));
    return std::count(rows.begin(), rows.end(), '\n');
  };
  folder.write("in/._a.png", "x");
  folder.write("in/.ipynb_checkpoints/a.png", "x");
  CHECK(run("clean.jsonl").code == 0);
  CHECK(count_rows("clean.jsonl") == 1);
  folder.write("in/b.jxl", "x");
  for (int i = 0; i < 2;
       ++i) {  // again: nothing is left to do, and the photograph still isn't read
    const ProgramResult left_out = run("jxl.jsonl");
    CHECK(left_out.code == 3);
    CHECK_THAT(left_out.err, Contains("left out") && Contains("1 .jxl"));
    CHECK(count_rows("jxl.jsonl") == 1);
  }
  fs::remove(folder.path() / "in/b.jxl");
  fs::create_symlink("loop.png", folder.path() / "in/loop.png");
  CHECK(run("loop.jsonl").code == 3);
  CHECK(count_rows("loop.jsonl") == 2);
  CHECK_THAT(read_file(folder.at("loop.jsonl")), Contains("Too many levels of symbolic links"));
}

TEST_CASE("a signal while a video is read ends with the signal's code") {
  const ScratchFolder folder;
  REQUIRE(run_shell("mkfifo '" + folder.at("clip") + "'", folder.path()).code == 0);
  for (const int signal : {SIGTERM, SIGINT}) {
    ChildProcess child({"generate", "--model", fixture("smolvlm_tiny").string(), "--device", "cpu",
                        "--prompt", "x", "--video", folder.at("clip")},
                       folder.path() / "log");
    // Opened by the reader too, and held open: the clip never ends.
    const int writer = ::open(folder.at("clip").c_str(), O_WRONLY);
    REQUIRE(child.is_running_after(std::chrono::milliseconds(300)));
    child.kill(signal);
    CHECK_FALSE(child.is_running_after(std::chrono::milliseconds(5000)));
    ::close(writer);
    CHECK(child.wait() == 128 + signal);
  }
}

// The folders that a program looks for its libraries in, as the file says.
std::vector<std::string> library_folders(const fs::path& program) {
  const std::string bytes = read_file(program);
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(bytes.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(bytes.data() + header->e_shoff);
  std::vector<std::string> folders;
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_DYNAMIC) continue;
    const char* names = bytes.data() + sections[sections[i].sh_link].sh_offset;
    const auto* entry = reinterpret_cast<const Elf64_Dyn*>(bytes.data() + sections[i].sh_offset);
    for (; entry->d_tag != DT_NULL; ++entry) {
      if (entry->d_tag != DT_RUNPATH && entry->d_tag != DT_RPATH) continue;
      const std::string all = std::string(names + entry->d_un.d_val) + ":";
      for (std::size_t begin = 0; begin < all.size();) {
        const std::size_t end = all.find(':', begin);
        folders.push_back(all.substr(begin, end - begin));
        begin = end + 1;
      }
    }
  }
  return folders;
}

TEST_CASE("programs look for libraries in fixed folders, wherever they are started") {
  const ScratchFolder prefix;
  REQUIRE(run_shell("cmake --install '" VLM_BUILD_FOLDER "' --prefix '" + prefix.path().string() +
                        "' >/dev/null",
                    prefix.path())
              .code == 0);
  for (const fs::path& program : {fs::path(VLM_BINARY), prefix.path() / "bin/vlm",
                                  fs::path(VLM_BUILD_FOLDER) / "tests/tests_e2e"}) {
    INFO(program);
    const std::vector<std::string> folders = library_folders(program);
    if (program.filename() == "vlm") REQUIRE(folders.size() >= 2);
    for (const std::string& folder : folders) {
      INFO("'" << folder << "'");
      CHECK((folder.starts_with('/') || folder.starts_with("$ORIGIN/")));
    }
  }
}

TEST_CASE("the loader may be told to start the program, and the program starts once") {
  const ProgramResult version = run_vlm("--version");
  const ProgramResult by_loader =
      run_shell("loader=$(readelf -p .interp '" VLM_BINARY
                "' | grep -o '/.*') && \"$loader\" '" VLM_BINARY "' --version",
                VLM_SOURCE_DIR);
  CHECK(by_loader.code == 0);
  CHECK(by_loader.out == version.out);
  // A program that starts itself again would lose this mark of its first start.
  const ProgramResult traced =
      run_shell("OMP_DISPLAY_ENV=VERBOSE \"$(readelf -p .interp '" VLM_BINARY
                "' | grep -o '/.*')\" '" VLM_BINARY "' --version 2>&1",
                VLM_SOURCE_DIR);
  CHECK_THAT(traced.out, Contains("GOMP_SPINCOUNT = '5000'"));
}

}  // namespace
}  // namespace vlm
