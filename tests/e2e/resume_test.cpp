// Runs that are killed, stopped or damaged, and go on: they end as if nothing had been.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <random>

#include "tests/support/child_process.h"
#include "tests/support/run_program.h"
#include "tests/support/small_training.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// Evaluation with answers, the best step, dropout, augmentation and several checkpoints.
std::vector<std::string> arguments(const ScratchFolder& folder, const std::string& output) {
  const std::string data = "[\"" + folder.at("data.jsonl") + "\"]";
  return training_arguments(
      folder.path(), output,
      {"max_steps=24", "save_steps=3", "eval_steps=8", "eval_files=" + data,
       "eval_metrics=[\"rouge_l\",\"cider\"]", "eval_max_new_tokens=4",
       "metric_for_best_model=loss", "augmentation.shift=0.1", "per_device_eval_batch_size=2"});
}

// Every file that an uninterrupted run leaves and that holds no times.
void check_same_result(const fs::path& whole, const fs::path& parts) {
  for (const char* name :
       {"adapter_model.safetensors", "adapter_config.json", "checkpoint-24/trained.safetensors",
        "checkpoint-24/optimizer.safetensors", "eval_before.jsonl", "eval_answers.jsonl"}) {
    INFO(name);
    const std::string wanted = read_file(whole / name);
    CHECK_FALSE(wanted.empty());
    CHECK(read_file(parts / name) == wanted);
  }
  CHECK(repeatable_metrics(parts) == repeatable_metrics(whole));
}

TEST_CASE("killed at random moments, a run ends bit by bit as one that was not") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl");
  const auto begun = std::chrono::steady_clock::now();
  ChildProcess whole(arguments(folder, "whole"), folder.at("whole.log"));
  REQUIRE(whole.wait() == 0);
  const auto whole_ms =
      std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begun).count();
  const char* asked = std::getenv("VLM_TEST_KILLS");
  const int wanted = asked ? std::atoi(asked) : 20;
  std::mt19937 random(std::random_device{}());
  int kills = 0, runs = 0;
  while (kills < wanted) {
    const std::string output = "parts" + std::to_string(runs++);
    // Late enough to get past loading, early enough not to let it finish too often.
    std::uniform_int_distribution<long> delay(whole_ms / 5, whole_ms * 9 / 10);
    bool is_done = false;
    while (!is_done) {
      ChildProcess part(arguments(folder, output), folder.at("part.log"));
      if (kills < wanted && part.is_running_after(milliseconds(delay(random)))) {
        part.kill(SIGKILL);
        ++kills;
      }
      const int code = part.wait();
      INFO(read_file(folder.at("part.log")));
      REQUIRE((code == 0 || code == 128 + SIGKILL));
      is_done = code == 0;
    }
    check_same_result(folder.path() / "whole", folder.path() / output);
  }
  WARN("killed " << kills << " times in " << runs << " runs");
}

TEST_CASE("Ctrl-C, SIGTERM and SIGHUP save a checkpoint and exit with their own codes") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl");
  std::signal(SIGHUP, SIG_DFL);  // under nohup the program would rightly go on
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const std::string output = "stopped" + std::to_string(signal);
    const auto command =
        training_arguments(folder.path(), output, {"max_steps=100000", "save_steps=0"});
    ChildProcess run(command, folder.at("log"));
    while (repeatable_metrics(folder.path() / output).empty()) {
      REQUIRE(run.is_running_after(milliseconds(10)));
    }
    run.kill(signal);
    CHECK(run.wait() == 128 + signal);
    CHECK_THAT(read_file(folder.at("log")), Contains("the same command goes on from here"));
    bool has_checkpoint = false;
    for (const auto& entry : fs::directory_iterator(folder.path() / output)) {
      has_checkpoint |= entry.path().filename().string().starts_with("checkpoint-");
    }
    CHECK(has_checkpoint);
    CHECK(fs::exists(folder.path() / output / "report.html"));
  }
}

// A run whose first evaluation takes long, at the moment when it has begun.
TEST_CASE("a signal in an evaluation is obeyed within a batch, and the evaluation made later") {
  for (const auto& [signal, answers] :
       {std::pair{SIGINT, false}, std::pair{SIGTERM, true}, std::pair{SIGHUP, false}}) {
    INFO("signal " << signal << ", answers " << answers);
    const ScratchFolder folder;
    write_questions(folder.path() / "data.jsonl");
    write_questions(folder.path() / "eval.jsonl", answers ? 400 : 4000);
    std::vector<std::string> settings = {"max_steps=2", "eval_steps=1", "save_steps=1",
                                         "per_device_eval_batch_size=2",
                                         "eval_files=[\"" + folder.at("eval.jsonl") + "\"]"};
    if (answers) {
      settings.insert(settings.end(), {"eval_metrics=[\"rouge_l\"]", "eval_max_samples=390",
                                       "eval_max_new_tokens=1000"});
    }
    const auto command = training_arguments(folder.path(), "out", settings);
    ChildProcess run(command, folder.at("log"));
    const fs::path begun = folder.path() / "out" / (answers ? "metrics.jsonl" : "checkpoint-1");
    while (!fs::exists(begun)) REQUIRE(run.is_running_after(milliseconds(5)));
    REQUIRE(run.is_running_after(milliseconds(300)));
    run.kill(signal);
    CHECK(run.wait() == 128 + signal);
    CHECK_THAT(read_file(folder.at("log")), Contains("stopped"));
    for (const Json& row : repeatable_metrics(folder.path() / "out")) {
      CHECK_FALSE(row.contains("eval_loss"));  // the evaluation was not waited for
    }
  }
}

TEST_CASE("looking through data ends at a signal") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 1000);
  const std::vector<std::string> files(1000, folder.at("data.jsonl"));  // more than a second's work
  auto words = training_arguments(folder.path(), "out", {"train_files=" + Json(files).dump()});
  words[0] = "inspect-data";
  const auto device = std::find(words.begin(), words.end(), "--device");  // it has none
  if (device != words.end()) words.erase(device, device + 2);
  ChildProcess run(words, folder.at("log"));
  const bool is_running = run.is_running_after(milliseconds(1000));
  INFO(read_file(folder.at("log")));
  REQUIRE(is_running);
  run.kill(SIGTERM);
  CHECK(run.wait() == 128 + SIGTERM);
}

// The command of a run in `folder` as the shell takes it.
std::string shell_command(const fs::path& folder, const std::vector<std::string>& settings) {
  std::string command = "'" + std::string(VLM_BINARY) + "'";
  for (const std::string& word : training_arguments(folder, "out", settings)) {
    command += " '" + word + "'";
  }
  return command;
}

TEST_CASE("a run outlives its terminal under nohup, and whoever reads its messages") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl");
  const std::string command = shell_command(folder.path(), {"max_steps=30"});
  const ProgramResult hung_up = run_shell(
      "nohup " + command +
          " & child=$!; while [ ! -s out/metrics.jsonl ]; do sleep 0.01; done; kill -HUP $child; "
          "wait $child",
      folder.path());
  INFO(hung_up.err);
  CHECK(hung_up.code == 0);
  CHECK(repeatable_metrics(folder.path() / "out").size() == 30);
  const ProgramResult unread =
      run_shell("set -o pipefail; " + command + " --restart 2>&1 | true", folder.path());
  CHECK(unread.code == 0);
  CHECK(repeatable_metrics(folder.path() / "out").size() == 30);
}

TEST_CASE("a damaged newest checkpoint is named, and the run goes on from the one before") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl");
  ChildProcess whole(arguments(folder, "whole"), folder.at("log"));
  REQUIRE(whole.wait() == 0);
  fs::copy(folder.at("whole"), folder.at("parts"), fs::copy_options::recursive);
  const fs::path newest = folder.path() / "parts/checkpoint-24/optimizer.safetensors";
  std::fstream(newest, std::ios::in | std::ios::out | std::ios::binary).seekp(-1, std::ios::end)
      << '\x55';
  fs::remove(folder.at("parts") + "/adapter_model.safetensors");
  ChildProcess again(arguments(folder, "parts"), folder.at("log"));
  REQUIRE(again.wait() == 0);
  CHECK_THAT(read_file(folder.at("log")),
             Contains("checkpoint-24 is damaged and passed over: optimizer.safetensors isn't what "
                      "was written") &&
                 Contains("goes on from " + folder.at("parts/checkpoint-21")));
  check_same_result(folder.path() / "whole", folder.path() / "parts");
}

}  // namespace
}  // namespace vlm
