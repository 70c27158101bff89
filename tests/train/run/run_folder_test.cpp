// Whose files are in output_dir: a run's own past, or another's, which is set aside and never read.
#include "train/run/run_folder.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/train/run/small_run.h"
#include "vlm/models/model_files.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::int64_t count_files(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST_CASE("one program at a time writes to a folder, by whatever name it is called") {
  const ScratchFolder scratch;
  const std::string other = "another program is writing to this folder: got process " +
                            std::to_string(::getpid()) + " on ";
  {
    const RunFolder first(scratch.at("out"));
    fs::create_directory_symlink(scratch.at("out"), scratch.at("link"));
    for (const char* name : {"out", "link", "./out/../out"}) {
      INFO(name);
      CHECK_THROWS_WITH(RunFolder(scratch.path() / name),
                        Contains(other) && Contains("choose another output_dir"));
    }
  }
  // The lock goes with its holder, and so does a folder that nothing was written to.
  CHECK_FALSE(fs::exists(scratch.at("out")));
  scratch.write("full/mine.txt", "");
  RunFolder(scratch.at("full"));
  CHECK(names_in(scratch.at("full")) == std::vector<std::string>{"mine.txt"});
  CHECK_THROWS_WITH(RunFolder(scratch.at("full/mine.txt")), Contains("can't make the folder"));
}

TEST_CASE("a new run sets an earlier one's files aside and reads none of them") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  config.save_steps = 0;
  config.eval_files = config.train_files;
  config.evaluation.eval_metrics = {"rouge_l"};
  TrainOptions options = kCpuOptions;
  options.answer = answer_numbers;
  Trainer(config, options).run();
  const auto earlier = names_in(config.output_dir);
  CHECK(std::count(earlier.begin(), earlier.end(), "run.lock") == 0);
  scratch.write("out/notes.txt", "mine");
  scratch.write("out/runs/events.out.tfevents.1.other.1.0", "other");
  scratch.write("out/plan.json", R"({"peak_mb": 123456})");

  TrainConfig next = config;  // without evaluation, of another shape
  next.eval_files = Json::array();
  next.evaluation.eval_metrics.clear();
  next.r = 4;
  next.max_steps = 1;
  {
    const LoggedLines log;
    Trainer(next, kCpuOptions).run();
    CHECK_THAT(log.text, Contains("what was there before is moved to " + scratch.at("out") +
                                  "/earlier-1: README.md, adapter_config.json, "
                                  "adapter_model.safetensors, eval_answers.jsonl and "));
    CHECK_THAT(log.text, !Contains("123456 MB planned"));
  }
  auto moved = names_in(config.output_dir + "/earlier-1");
  std::erase(moved, "plan.json");
  CHECK(moved == earlier);
  CHECK(load_text(scratch.at("out/notes.txt")) == "mine");
  CHECK(count_files(scratch.path() / "out/runs") == 1);
  CHECK(repeatable_metrics(next.output_dir).size() == 1);
  CHECK_FALSE(fs::exists(scratch.at("out/eval_answers.jsonl")));
  CHECK_THAT(load_text(scratch.at("out/report.html")), !Contains("rouge"));

  // Fewer rows to evaluate on than an earlier run had.
  write_questions(scratch.at("two.jsonl"), 2);
  config.eval_files = {scratch.at("two.jsonl")};
  Trainer(config, options).run();
  CHECK(load_text(scratch.at("out/eval_answers.jsonl")).find("\"index\":2") == std::string::npos);
  CHECK(fs::exists(scratch.at("out/earlier-2/adapter_config.json")));
}

TEST_CASE("what another method left, in any format, doesn't lie beside a result") {
  const ScratchFolder scratch;
  TrainConfig full = small_config(scratch);
  full.method = "full";
  full.save_steps = 0;
  Trainer(full, kCpuOptions).run();
  scratch.write("out/pytorch_model-00001-of-00002.bin", "old");
  TrainConfig lora = small_config(scratch);
  Trainer(lora, kCpuOptions).run();
  for (const char* name :
       {"model.safetensors", "config.json", "tokenizer.json", "pytorch_model-00001-of-00002.bin"}) {
    INFO(name);
    CHECK_FALSE(fs::exists(scratch.path() / "out" / name));
    CHECK(fs::exists(scratch.path() / "out/earlier-1" / name));
  }
  // Also where the run goes on: what was put there by hand since goes, its own files stay.
  for (const char* name : {"model.safetensors", "config.json"}) {
    fs::copy_file(scratch.path() / "out/earlier-1" / name, scratch.path() / "out" / name);
  }
  lora.max_steps = 3;
  Trainer(lora, kCpuOptions).run();
  CHECK_FALSE(fs::exists(scratch.at("out/model.safetensors")));
  CHECK(fs::exists(scratch.at("out/earlier-2/config.json")));
  CHECK(names_in(scratch.at("out/earlier-2")).size() == 2);
  CHECK(repeatable_metrics(lora.output_dir).size() == 3);
  // A config.json without weights is no model's.
  scratch.write("out/config.json", "{}");
  lora.max_steps = 4;
  Trainer(lora, kCpuOptions).run();
  CHECK(load_text(scratch.at("out/config.json")) == "{}");
}

TEST_CASE("a run that ended before its first checkpoint begins again in its own files") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  config.save_steps = 0;
  Trainer(config, kCpuOptions).run();
  const auto cut = [&] {  // as if it had been killed before its end
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
      fs::remove(scratch.path() / "out" / name);
    }
  };
  cut();
  Trainer(config, kCpuOptions).run();
  CHECK_FALSE(fs::exists(scratch.at("out/earlier-1")));
  CHECK(repeatable_metrics(config.output_dir).size() == 2);
  cut();
  config.learning_rate = 1e-3;  // another run
  Trainer(config, kCpuOptions).run();
  CHECK(fs::exists(scratch.at("out/earlier-1/metrics.jsonl")));
}

TEST_CASE("partly deleted and hand-written files end no run, and no result is lost") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  config.eval_files = config.train_files;
  config.evaluation.eval_metrics = {"rouge_l"};
  TrainOptions options = kCpuOptions;
  options.answer = answer_numbers;
  Trainer(config, options).run();
  for (const char* name : {"eval_before.jsonl", "eval_answers.jsonl", "metrics.jsonl"}) {
    INFO(name);
    config.max_steps += 1;
    scratch.write(std::string("out/") + name, "{\"step\": \"one\"}\nnot JSON\n");
    fs::remove_all(scratch.at("out/adapter_model.safetensors"));
    set_log_level(LogLevel::kOff);
    CHECK(run_error(config, options) == "");
    set_log_level(LogLevel::kInfo);
    CHECK(fs::exists(scratch.at("out/adapter_model.safetensors")));
    config.max_steps += 1;
    fs::remove(scratch.path() / "out" / name);
    CHECK(run_error(config, options) == "");
  }
  // Rows about samples that aren't there.
  scratch.write("out/eval_before.jsonl",
                R"({"index": 99, "where": "x", "question": "?", "references": [], "answer": ""})"
                "\n");
  fs::copy_file(scratch.at("out/eval_before.jsonl"), scratch.at("out/eval_answers.jsonl"),
                fs::copy_options::overwrite_existing);
  CHECK(run_error(config, options) == "");
}

TEST_CASE("what a kill left of a file that was being saved is removed, other files stay") {
  const ScratchFolder scratch;
  const TrainConfig config = small_config(scratch);
  const std::string aside = ".tmp0123456789abcdef";
  for (const char* name : {"adapter_model.safetensors", "metrics.jsonl", "mine.txt"}) {
    scratch.write("out/" + std::string(name) + aside, "half");
  }
  scratch.write("out/report.html.tmp", "of somebody");
  Trainer(config, kCpuOptions).run();
  std::vector<std::string> left;
  for (const std::string& name : names_in(scratch.at("out"))) {
    if (name.find(".tmp") != std::string::npos) left.push_back(name);
  }
  CHECK(left == std::vector<std::string>{"mine.txt" + aside, "report.html.tmp"});
}

TEST_CASE("what a kill left of a checkpoint's new state is removed") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  Trainer(config, kCpuOptions).run();
  const std::string left = "out/checkpoint-1/trainer_state.json.tmp0123456789abcdef";
  REQUIRE(fs::exists(scratch.at("out/checkpoint-1/trainer_state.json")));
  scratch.write(left, "half");
  Trainer(config, kCpuOptions).run();
  CHECK_FALSE(fs::exists(scratch.at(left)));
  CHECK(fs::exists(scratch.at("out/checkpoint-1/trainer_state.json")));
}

TEST_CASE("a restart removes the checkpoints that this program wrote, and only these") {
  const ScratchFolder scratch;
  const TrainConfig config = small_config(scratch);
  Trainer(config, kCpuOptions).run();
  // As transformers' Trainer leaves one.
  scratch.write("out/checkpoint-7/trainer_state.json", R"({"global_step": 7})");
  scratch.write("out/checkpoint-7/model.safetensors", "");
  scratch.write("out/checkpoint-7/optimizer.pt", "");
  fs::remove(scratch.at("out/checkpoint-1/trainer_state.json"));  // damaged, but ours
  TrainOptions options = kCpuOptions;
  options.restart = true;
  TrainConfig wrong = config;
  wrong.model_name_or_path = scratch.at("none");
  CHECK_FALSE(run_error(wrong, options).empty());
  CHECK(fs::exists(scratch.at("out/checkpoint-2")));  // nothing goes before all is loaded
  TrainConfig one = config;
  one.max_steps = 1;
  Trainer(one, options).run();
  CHECK(fs::exists(scratch.at("out/earlier-1/checkpoint-7/optimizer.pt")));
  CHECK(fs::exists(scratch.at("out/earlier-1/adapter_model.safetensors")));
  CHECK_FALSE(fs::exists(scratch.at("out/checkpoint-2")));
  CHECK(fs::exists(scratch.at("out/checkpoint-1/trainer_state.json")));
  CHECK(repeatable_metrics(config.output_dir).size() == 1);
}

TEST_CASE("another program's checkpoint is neither gone on from nor written over") {
  const ScratchFolder scratch;
  const TrainConfig config = small_config(scratch);
  scratch.write("out/checkpoint-1/trainer_state.json", R"({"global_step": 1})");
  scratch.write("out/checkpoint-1/pytorch_model.bin", "theirs");
  Trainer(config, kCpuOptions).run();
  CHECK(load_text(scratch.at("out/earlier-1/checkpoint-1/pytorch_model.bin")) == "theirs");
  CHECK(fs::exists(scratch.at("out/checkpoint-1/optimizer.safetensors")));
}

TEST_CASE("a result never takes the place of what the run reads") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  config.method = "full";
  fs::copy(fixture("smolvlm_tiny"), scratch.at("base"));
  fs::create_directory_symlink(scratch.at("base"), scratch.at("link"));
  const std::string weights = load_text(scratch.at("base/model.safetensors"));
  const auto names = names_in(scratch.at("base"));
  const auto refusal = [&](const std::string& base, const std::string& output) {
    config.model_name_or_path = scratch.at(base);
    config.output_dir = scratch.at(output);
    return run_error(config);
  };
  const std::string why = "what is read would be written over by the result";
  CHECK_THAT(refusal("base", "base"), Contains(why) && Contains("choose another folder"));
  CHECK_THAT(refusal("link", "base"), Contains(why));
  CHECK_THAT(refusal("base", "link"), Contains(why));
  CHECK_THAT(refusal("base", "data/../base/"), Contains(why));
  // A base whose file is a link into the folder of the result.
  fs::create_directory(scratch.at("linked"));
  for (const auto& entry : fs::directory_iterator(scratch.path() / "base")) {
    fs::create_symlink(entry.path(), scratch.path() / "linked" / entry.path().filename());
  }
  CHECK_THAT(refusal("linked", "base"), Contains("linked/") && Contains(why));
  config.method = "lora";
  CHECK_THAT(refusal("base", "base"), Contains(why));
  CHECK(load_text(scratch.at("base/model.safetensors")) == weights);
  CHECK(names_in(scratch.at("base")) == names);
  // Beside the base is room, below it and above it too.
  config.max_steps = 1;
  CHECK(refusal("base", "base/out").empty());
  CHECK(refusal("base/out/../../base", ".").empty());
  CHECK(load_text(scratch.at("base/model.safetensors")) == weights);

  // A starting adapter, data and the config file itself.
  config.model_name_or_path = scratch.at("base");
  config.adapter = scratch.at("next/checkpoint-9");
  fs::create_directories(*config.adapter);
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    fs::copy_file(scratch.path() / "base/out/checkpoint-1" / name,
                  fs::path(*config.adapter) / name);
  }
  config.output_dir = scratch.at("next");
  CHECK_THAT(run_error(config), Contains("next/checkpoint-9: " + why));
  CHECK(fs::exists(scratch.at("next/checkpoint-9/adapter_config.json")));
  config.adapter.reset();
  config.output_dir = scratch.at("new");
  write_questions(scratch.write("new/metrics.jsonl", ""));
  config.train_files = {scratch.at("new/metrics.jsonl")};
  CHECK_THAT(run_error(config), Contains("new/metrics.jsonl: " + why));
  TrainOptions options = kCpuOptions;
  options.config_file = scratch.write("full/config.json", "{}");
  config.train_files = {scratch.at("data.jsonl")};
  config.method = "full";
  config.output_dir = scratch.at("full");
  CHECK_THAT(run_error(config, options), Contains("full/config.json: " + why));
  config.method = "lora";
  CHECK(run_error(config, options) == "");
  CHECK(load_text(options.config_file) == "{}");
}

}  // namespace
}  // namespace vlm::train
