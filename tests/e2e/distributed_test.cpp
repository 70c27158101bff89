// Several processes of one job, started as torchrun starts them: by variables of the environment.
#include <algorithm>
#include <memory>

#include "tests/support/child_process.h"
#include "tests/support/free_port.h"
#include "tests/support/run_program.h"
#include "tests/support/small_training.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

using Ranks = std::vector<std::unique_ptr<ChildProcess>>;

// Logs go to rank0.log, rank1.log, …
Ranks start_ranks(int count, const std::vector<std::string>& arguments, const fs::path& logs) {
  const std::string port = std::to_string(find_free_port()), size = std::to_string(count);
  Ranks ranks;
  for (int i = 0; i < count; ++i) {
    const std::string rank = std::to_string(i);
    ranks.push_back(std::make_unique<ChildProcess>(
        arguments, logs / ("rank" + rank + ".log"),
        std::map<std::string, std::string>{{"RANK", rank},
                                           {"WORLD_SIZE", size},
                                           {"LOCAL_RANK", rank},
                                           {"LOCAL_WORLD_SIZE", size},
                                           {"MASTER_ADDR", "127.0.0.1"},
                                           {"MASTER_PORT", port}}));
  }
  return ranks;
}

// Two machines with a simulated GPU each.
Ranks start_gpu_ranks(std::vector<std::string> arguments, const fs::path& logs) {
  *(std::find(arguments.begin(), arguments.end(), "--device") + 1) = "cuda";
  arguments.insert(arguments.end(), {"--dtype", "float32"});
  const std::string port = std::to_string(find_free_port());
  Ranks ranks;
  for (const std::string rank : {"0", "1"}) {
    const std::map<std::string, std::string> variables = {{"RANK", rank},
                                                          {"WORLD_SIZE", "2"},
                                                          {"LOCAL_RANK", "0"},
                                                          {"LOCAL_WORLD_SIZE", "1"},
                                                          {"MASTER_ADDR", "127.0.0.1"},
                                                          {"MASTER_PORT", port},
                                                          {"GLOO_SOCKET_IFNAME", "lo"}};
    ranks.push_back(std::make_unique<ChildProcess>(arguments, logs / ("rank" + rank + ".log"),
                                                   variables, VLM_SIMULATED));
  }
  return ranks;
}

void run_ranks(int count, const std::vector<std::string>& arguments, const fs::path& logs) {
  Ranks ranks = start_ranks(count, arguments, logs);
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const int code = ranks[i]->wait();
    INFO("rank " << i << ": " << read_file(logs / ("rank" + std::to_string(i) + ".log")));
    CHECK(code == 0);
  }
}

// A training into folder/out that ends only when it is ended.
std::vector<std::string> endless_training(const ScratchFolder& folder) {
  write_questions(folder.path() / "data.jsonl", 4);
  return training_arguments(folder.path(), "out", {"max_steps=100000", "save_steps=0"});
}

void wait_for_steps(ChildProcess& rank, const ScratchFolder& folder, std::size_t steps) {
  while (repeatable_metrics(folder.path() / "out").size() < steps) {
    REQUIRE(rank.is_running_after(milliseconds(10)));
  }
}

void check_same_course(const fs::path& one, const fs::path& other) {
  const auto wanted = repeatable_metrics(one), got = repeatable_metrics(other);
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    INFO("row " << i << ": " << got[i] << " and " << wanted[i]);
    REQUIRE(got[i].size() == wanted[i].size());
    for (const auto& [key, value] : wanted[i].items()) {
      INFO(key);
      CHECK(got[i].at(key).get<double>() == Approx(value.get<double>()).epsilon(1e-4));
    }
  }
}

const std::vector<std::string> kSteps = {"max_steps=9", "save_steps=3", "save_total_limit=9"};

std::vector<std::string> with(std::vector<std::string> settings,
                              const std::vector<std::string>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

TEST_CASE("two processes go the way of one with twice the accumulation, and any number goes on") {
  const ScratchFolder folder;
  // An odd number: in an epoch's last step one process has nothing.
  write_questions(folder.path() / "data.jsonl", 5);
  const std::string eval = "eval_files=[\"" + folder.at("data.jsonl") + "\"]";
  const std::vector<std::string> settings =
      with(kSteps, {eval, "eval_steps=3", "eval_metrics=[\"rouge_l\"]", "eval_max_new_tokens=4",
                    "metric_for_best_model=loss", "augmentation.shift=0.1"});
  const auto twice = with(settings, {"gradient_accumulation_steps=2"});
  run_ranks(1, training_arguments(folder.path(), "one", twice), folder.path());
  run_ranks(2, training_arguments(folder.path(), "two", settings), folder.path());
  const fs::path one = folder.path() / "one", two = folder.path() / "two";
  check_same_course(one, two);
  CHECK_THAT(read_file(folder.at("rank0.log")), Contains("trains with 2 processes"));
  CHECK(read_file(folder.at("rank1.log")).empty());  // one tells, and one writes

  const auto drop_from = [&](const fs::path& output, std::int64_t step) {
    for (; step <= 9; step += 3) fs::remove_all(output / ("checkpoint-" + std::to_string(step)));
  };
  drop_from(two, 6);
  run_ranks(1, training_arguments(folder.path(), "two", settings), folder.path());
  CHECK_THAT(read_file(folder.at("rank0.log")), Contains("goes on from"));
  check_same_course(one, two);
  drop_from(one, 6);
  run_ranks(2, training_arguments(folder.path(), "one", twice), folder.path());
  check_same_course(one, two);

  drop_from(one, 9);
  Ranks three = start_ranks(3, training_arguments(folder.path(), "one", twice), folder.path());
  CHECK(three[0]->wait() == 1);
  CHECK_THAT(read_file(folder.at("rank0.log")),
             Contains("checkpoint-6: a step can't be split over the processes: got 2 samples a "
                      "step, wanted a multiple of the 3 samples that 3 processes take in a pass"));
}

TEST_CASE("a killed process ends the job with an error that says so") {
  const ScratchFolder folder;
  Ranks ranks = start_ranks(2, endless_training(folder), folder.path());
  wait_for_steps(*ranks[0], folder, 3);
  ranks[1]->kill(SIGKILL);
  CHECK(ranks[1]->wait() == 128 + SIGKILL);
  CHECK(ranks[0]->wait() == 1);
  CHECK_THAT(read_file(folder.at("rank0.log")),
             Contains("error: rank 0 of 2: lost another process of the job: got ") &&
                 Contains("the same command goes on from the last checkpoint"));
}

TEST_CASE("processes on GPUs go the way of processes on CPUs") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 5);
  const auto settings = with(kSteps, {"lora_dropout=0"});  // devices draw numbers of their own
  run_ranks(2, training_arguments(folder.path(), "cpu", settings), folder.path());
  Ranks ranks = start_gpu_ranks(training_arguments(folder.path(), "gpu", settings), folder.path());
  CHECK(ranks[0]->wait() == 0);
  CHECK(ranks[1]->wait() == 0);
  const std::string log = read_file(folder.at("rank0.log"));
  INFO(log);
  CHECK_THAT(log, !Contains("gradients go through the CPU"));
  check_same_course(folder.path() / "cpu", folder.path() / "gpu");
}

TEST_CASE("a process that is killed on its GPU doesn't leave the other waiting") {
  const ScratchFolder folder;
  Ranks ranks = start_gpu_ranks(endless_training(folder), folder.path());
  wait_for_steps(*ranks[0], folder, 2);
  ranks[1]->kill(SIGKILL);
  CHECK(ranks[1]->wait() == 128 + SIGKILL);
  CHECK(ranks[0]->wait() == 1);
  CHECK_THAT(read_file(folder.at("rank0.log")),
             Contains("error: rank 0 of 2: lost another process of the job"));
}

TEST_CASE("a signal to one process stops all of them at the same step") {
  const ScratchFolder folder;
  Ranks ranks = start_ranks(2, endless_training(folder), folder.path());
  wait_for_steps(*ranks[0], folder, 3);
  ranks[1]->kill(SIGTERM);
  CHECK(ranks[1]->wait() == 143);
  CHECK(ranks[0]->wait() == 143);
  CHECK_THAT(read_file(folder.at("rank0.log")), Contains("the same command goes on from here"));
}

TEST_CASE("a job has its folder for itself, and a second one ends with all its processes") {
  const ScratchFolder folder;
  const auto command = endless_training(folder);
  fs::create_directory(folder.path() / "second");
  Ranks first = start_ranks(2, command, folder.path());
  wait_for_steps(*first[0], folder, 2);
  Ranks second = start_ranks(2, command, folder.path() / "second");
  CHECK(second[0]->wait() == 1);
  CHECK(second[1]->wait() == 1);
  CHECK_THAT(read_file(folder.at("second/rank0.log")),
             Contains("out: another program is writing to this folder: got process "));
  CHECK(first[1]->is_running_after(milliseconds(1)));
  first[0]->kill(SIGTERM);
  CHECK(first[0]->wait() == 143);
  CHECK(first[1]->wait() == 143);
}

TEST_CASE("a bad sample of one process ends all, and a checkpoint is left") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  std::ofstream(folder.path() / "data.jsonl", std::ios::app) << "{\"messages\": 7}\n";
  Ranks ranks = start_ranks(
      2, training_arguments(folder.path(), "out", {"max_steps=9", "shuffle=false"}), folder.path());
  CHECK(ranks[0]->wait() == 1);
  CHECK(ranks[1]->wait() == 1);
  const std::string bad = "data.jsonl:5: no messages";
  CHECK_THAT(read_file(folder.at("rank0.log")), Contains("out/checkpoint-2: the same command") &&
                                                    Contains("error: " + folder.at(bad)));
  CHECK_THAT(read_file(folder.at("rank1.log")),
             Contains("error: rank 0 of 2: another process of the job can't go on: got " +
                      folder.at(bad)));
  CHECK(fs::exists(folder.path() / "out/checkpoint-2"));
}

TEST_CASE("a signal to one process in an evaluation stops all of them") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  write_questions(folder.path() / "eval.jsonl", 4000);
  Ranks ranks =
      start_ranks(2,
                  training_arguments(folder.path(), "out",
                                     {"max_steps=2", "eval_steps=1", "save_steps=1",
                                      "per_device_eval_batch_size=1",
                                      "eval_files=[\"" + folder.at("eval.jsonl") + "\"]"}),
                  folder.path());
  while (!fs::exists(folder.path() / "out/checkpoint-1")) {
    REQUIRE(ranks[0]->is_running_after(milliseconds(5)));
  }
  ranks[1]->kill(SIGHUP);
  CHECK(ranks[1]->wait() == 129);
  CHECK(ranks[0]->wait() == 143);
  CHECK(repeatable_metrics(folder.path() / "out").size() == 1);  // of the step alone
}

TEST_CASE("variables that describe no job are refused by name") {
  const auto run = [](const std::string& variables) {
    return run_shell("exec env " + variables + " '" + VLM_BINARY +
                         "' finetune configs/fashion_lora.json --set output_dir=/tmp/none",
                     VLM_SOURCE_DIR);
  };
  CHECK_THAT(run("WORLD_SIZE=2").err,
             Contains("error: RANK: bad variable of the environment: got nothing, wanted a number "
                      "from 0 to 1 (torchrun sets it)"));
  CHECK_THAT(run("WORLD_SIZE=two RANK=0").err, Contains("WORLD_SIZE: bad variable"));
  CHECK_THAT(run("WORLD_SIZE=2 RANK=2").err,
             Contains("RANK: bad variable of the environment: got '2'"));
  CHECK_THAT(run("WORLD_SIZE=2 RANK=0").err, Contains("MASTER_ADDR: bad variable"));
  CHECK_THAT(run("WORLD_SIZE=2 RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=0").err,
             Contains("MASTER_PORT: bad variable of the environment: got '0'"));
}

}  // namespace
}  // namespace vlm
