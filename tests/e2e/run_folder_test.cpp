// Folders of runs and of merged models as users meet them: one writer, no leftovers, nothing lost.
#include "tests/support/child_process.h"
#include "tests/support/run_program.h"
#include "tests/support/small_training.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

const std::string kCpuFlags = " --device cpu --threads 1";

std::string quoted(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += "'" + word + "' ";
  return line;
}

TEST_CASE("of two runs in one folder the second is refused, whatever it is, until the first ends") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl");
  const auto command =
      training_arguments(folder.path(), "out", {"max_steps=100000", "save_steps=0"});
  ChildProcess first(command, folder.at("log"));
  while (repeatable_metrics(folder.path() / "out").size() < 2) {
    REQUIRE(first.is_running_after(milliseconds(10)));
  }
  fs::create_directory_symlink(folder.at("out"), folder.at("link"));
  const std::string refusal = ": another program is writing to this folder: got process ";
  for (const std::string output : {"out", "link"}) {
    for (const std::string more : {"", " --restart"}) {
      const ProgramResult second =
          run_vlm(quoted(training_arguments(folder.path(), output, {"max_steps=2"})) + more);
      CHECK(second.code == 1);
      CHECK_THAT(second.err, Contains(folder.at(output) + refusal) &&
                                 Contains("wait for it, or choose another output_dir"));
    }
  }
  const ProgramResult merge = run_vlm(
      "merge --dtype bfloat16 --model " + fixture("smolvlm_tiny").string() + " --output out",
      folder.path());
  CHECK(merge.code == 1);
  CHECK_THAT(merge.err, Contains("out" + refusal));
  CHECK_FALSE(fs::exists(folder.at("out/model.safetensors")));
  CHECK(first.is_running_after(milliseconds(1)));
  // However the first ends, its lock ends with it.
  first.kill(SIGKILL);
  first.wait();
  const ProgramResult next =
      run_vlm(quoted(training_arguments(folder.path(), "out", {"max_steps=2"})));
  INFO(next.err);
  CHECK(next.code == 0);
  CHECK_FALSE(fs::exists(folder.at("out/run.lock")));
}

TEST_CASE("checkpoints are adapters and models for every command") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl");
  const std::string ask = " --image " + fixture("pictures/wide.png").string() +
                          " --prompt 'Where?' --max-new-tokens 8" + kCpuFlags;
  const std::string base = " --model " + fixture("smolvlm_tiny").string();
  const auto answer = [&](const std::string& model) {
    const ProgramResult result = run_vlm("generate" + model + ask, folder.path());
    INFO(result.err);
    CHECK(result.code == 0);
    return result.out;
  };
  for (const std::string method : {"lora", "full"}) {
    INFO(method);
    const ProgramResult trained = run_vlm(quoted(training_arguments(
        folder.path(), method, {"method=" + method, "max_steps=6", "save_steps=3"})));
    INFO(trained.err);
    REQUIRE(trained.code == 0);
  }
  CHECK(answer(base + " --adapter lora/checkpoint-6") == answer(base + " --adapter lora"));
  CHECK(answer(" --model full/checkpoint-6") == answer(" --model full"));
  REQUIRE(run_vlm("merge" + base + " --adapter lora/checkpoint-6 --output merged", folder.path())
              .code == 0);
  CHECK(answer(" --model merged") == answer(base + " --adapter lora"));
}

TEST_CASE("a merged model lies alone, and never on what it was made of") {
  const ScratchFolder folder;
  fs::copy(fixture("smolvlm_tiny"), folder.at("base"));
  fs::copy(fixture("smolvlm_tiny/train/adapter_start"), folder.at("adapter"));
  const auto merge = [&](const std::string& output) {
    return run_vlm("merge --model base --adapter adapter --output " + output, folder.path());
  };
  REQUIRE(merge("clean").code == 0);
  // What a run, another merge and another program may have left there.
  fs::copy(folder.at("adapter"), folder.at("used"));
  for (const char* name :
       {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin",
        "adapter_model.bin", "added_tokens.json", "chat_template.json"}) {
    folder.write(std::string("used/") + name, "{}");
  }
  folder.write("used/notes.txt", "mine");
  const ProgramResult merged = merge("used");
  INFO(merged.err);
  CHECK(merged.code == 0);
  CHECK_THAT(merged.err, Contains("what was there before is moved to used/earlier-1: "));
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder.at("used"))) {
    const std::string name = entry.path().filename().string();
    if (name != "earlier-1" && name != "notes.txt") names.push_back(name);
  }
  for (const std::string& name : names) {
    INFO(name);
    CHECK(read_file(folder.path() / "used" / name) == read_file(folder.path() / "clean" / name));
  }
  CHECK(static_cast<std::int64_t>(names.size()) ==
        std::distance(fs::directory_iterator(folder.at("clean")), fs::directory_iterator()));
  CHECK(fs::exists(folder.at("used/earlier-1/adapter_model.safetensors")));
  CHECK(read_file(folder.at("used/notes.txt")) == "mine");

  const std::string weights = read_file(folder.at("base/model.safetensors"));
  fs::create_directory_symlink(folder.at("base"), folder.at("link"));
  for (const char* output : {"base", "link", "adapter", "base/../adapter"}) {
    INFO(output);
    const ProgramResult refused = merge(output);
    CHECK(refused.code == 1);
    CHECK_THAT(refused.err, Contains("what is read would be written over by the result") &&
                                Contains("choose another folder"));
  }
  CHECK(read_file(folder.at("base/model.safetensors")) == weights);
  CHECK(fs::exists(folder.at("adapter/adapter_config.json")));
  CHECK(merge("base/merged").code == 0);  // beside, not on
}

TEST_CASE("a plan that doesn't fit prints itself and is an error") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl");
  training_arguments(folder.path(), "out");
  const std::string config = "'" + folder.at("config.json") + "'" + kCpuFlags;
  const ProgramResult plan = run_vlm("plan " + config + " --memory-gb 0.001");
  CHECK(plan.code == 1);
  CHECK_THAT(plan.out, Contains("more than 1"));
  CHECK_THAT(plan.err,
             Contains("error: memory_gb: the run doesn't fit the memory: got a peak of ") &&
                 Contains("wanted at most 1 MB"));
  const ProgramResult fits = run_vlm("plan " + config + " --memory-gb 100");
  CHECK(fits.code == 0);
  CHECK(fits.err.find("error") == std::string::npos);
}

}  // namespace
}  // namespace vlm
