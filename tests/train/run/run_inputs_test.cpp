// A run doesn't go on with other files than it began with, and the error names the file.
#include "train/run/run_inputs.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/train/run/small_run.h"
#include "vlm/io/file_digest.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

// A run whose every file lies in the folder, trained two steps of four.
TrainConfig begin_run(const ScratchFolder& scratch) {
  fs::copy(fixture("smolvlm_tiny"), scratch.at("base"));
  fs::copy(fixture("smolvlm_tiny/train/adapter_start"), scratch.at("start"));
  fs::create_directory(scratch.at("pictures"));
  for (const char* name : {"square.png", "wide.png"}) {
    fs::copy(fixture("pictures") / name, scratch.path() / "pictures" / name);
  }
  const std::string rows =
      R"({"query": "What?", "response": "a cat", "image": "pictures/square.png"})"
      "\n"
      R"({"query": "Where?", "response": "here", "image": "pictures/wide.png"})"
      "\n";
  scratch.write("train.jsonl", rows);
  scratch.write("eval.jsonl", rows);
  TrainConfig config = small_config(scratch);
  config.model_name_or_path = scratch.at("base");
  config.adapter = scratch.at("start");
  config.train_files = {scratch.at("train.jsonl")};
  config.eval_files = {scratch.at("eval.jsonl")};
  Trainer(config, kCpuOptions).run();
  config.max_steps = 4;
  return config;
}

TEST_CASE("every file that a run is made of is compared when it goes on") {
  const ScratchFolder scratch;
  const TrainConfig config = begin_run(scratch);
  const auto keep = [&] {
    fs::remove_all(scratch.at("kept"));
    fs::copy(scratch.at("out"), scratch.at("kept"), fs::copy_options::recursive);
  };
  keep();
  for (const char* name : {"train.jsonl", "eval.jsonl", "base/model.safetensors",
                           "base/config.json", "base/tokenizer.json", "base/chat_template.jinja",
                           "start/adapter_model.safetensors", "pictures/wide.png"}) {
    INFO(name);
    const fs::path path = scratch.path() / name;
    if (!fs::exists(path)) continue;
    const std::string whole = load_text(path);
    std::string other = whole;
    other[other.size() / 2] = static_cast<char>(other[other.size() / 2] ^ 1);
    scratch.write(name, other);
    const std::string message = run_error(config);
    // A model's or adapter's file may be broken so that it can't be loaded at all.
    CHECK_THAT(message, Contains(path.filename().string()));
    if (fs::path(name).parent_path() != "base") {
      CHECK_THAT(message, Contains(path.string() +
                                   ": the file isn't what it was when the run began: got other "
                                   "content, wanted " +
                                   std::to_string(whole.size()) + " bytes") &&
                              Contains("--restart to begin anew"));
    }
    // Written anew with the same bytes it is the same file; nothing was changed by the refusal.
    scratch.write(name, whole);
  }
  CHECK(load_text(scratch.at("kept/metrics.jsonl")) == load_text(scratch.at("out/metrics.jsonl")));
  CHECK_FALSE(fs::exists(scratch.at("out/earlier-1")));
  CHECK(run_error(config).empty());
  CHECK(repeatable_metrics(config.output_dir).back()["step"] == 4);
}

TEST_CASE("rows that are gone, files that are gone or new, and weights of the same size") {
  const ScratchFolder scratch;
  const TrainConfig config = begin_run(scratch);
  const std::string rows = load_text(scratch.at("train.jsonl"));
  scratch.write("train.jsonl", rows.substr(0, rows.find('\n') + 1));
  CHECK_THAT(run_error(config), Contains("train.jsonl: the file isn't what it was") &&
                                    Contains("got " + std::to_string(rows.find('\n') + 1) +
                                             " bytes, wanted " + std::to_string(rows.size())));
  scratch.write("train.jsonl", rows);
  fs::rename(scratch.at("pictures/wide.png"), scratch.at("pictures/away.png"));
  CHECK_THAT(run_error(config),
             Contains("pictures/wide.png: the file isn't what it was when the run began: got no "
                      "file, wanted "));
  fs::rename(scratch.at("pictures/away.png"), scratch.at("pictures/wide.png"));
  scratch.write("base/added_tokens.json", "{}");
  CHECK_THAT(run_error(config),
             Contains("base/added_tokens.json: the file wasn't there when the run began"));
  fs::remove(scratch.at("base/added_tokens.json"));
  const fs::path side = scratch.path() / "base/generation_config.json";
  if (fs::exists(side)) {
    const std::string text = load_text(side);
    fs::remove(side);
    CHECK_THAT(run_error(config),
               Contains("base/generation_config.json: the run doesn't read the file any more"));
    save_text(side, text);
  }
  // The last byte of the weights: no loader minds.
  std::string weights = load_text(scratch.at("base/model.safetensors"));
  weights.back() = static_cast<char>(weights.back() ^ 1);
  scratch.write("base/model.safetensors", weights);
  CHECK_THAT(run_error(config), Contains("base/model.safetensors: the file isn't what it was"));
  // With random weights the base's own don't count.
  TrainConfig random = config;
  random.adapter.reset();
  random.method = "full";
  random.init_weights = "random";
  random.output_dir = scratch.at("random");
  Trainer(random, kCpuOptions).run();
  weights.back() = static_cast<char>(weights.back() ^ 1);
  scratch.write("base/model.safetensors", weights);
  random.max_steps = 5;
  CHECK(run_error(random).empty());
}

TEST_CASE("a run with random weights begins from a folder without any") {
  const ScratchFolder scratch;
  TrainConfig config = begin_run(scratch);
  fs::remove(scratch.at("base/model.safetensors"));
  config.adapter.reset();
  config.method = "full";
  config.init_weights = "random";
  config.output_dir = scratch.at("random");
  Trainer(config, kCpuOptions).run();
  CHECK(fs::exists(scratch.at("random/model.safetensors")));
  config.init_weights = "checkpoint";
  config.output_dir = scratch.at("checkpoint");
  CHECK_THAT(run_error(config), Contains("base: no weights in the folder"));
}

TEST_CASE("a checkpoint of an earlier version goes on, and says what it can't compare") {
  const ScratchFolder scratch;
  const TrainConfig config = begin_run(scratch);
  fs::remove(scratch.at("out/checkpoint-2/inputs.json"));
  const LoggedLines log;
  CHECK(run_error(config).empty());
  CHECK_THAT(log.text, Contains("checkpoint-2 holds no digests of the run's files: they aren't "
                                "compared"));
}

TEST_CASE("inputs are written and read back, with names that are no UTF-8") {
  const ScratchFolder scratch;
  InputFiles files = {{.role = "media", .path = scratch.write("a\xff.png", "bytes")},
                      {.role = "media", .path = scratch.at("none.png")}};
  for (InputFile& file : files) file.stamp = stamp_file(file.path);
  CHECK(files[0].stamp.starts_with("5 "));
  CHECK(files[1].stamp.empty());
  digest_inputs(files);
  CHECK(files[0].digest.size() == 32);
  CHECK(files[1].digest.empty());
  save_text(scratch.at("inputs.json"), to_text(files));
  InputFiles now = files;
  now[0].digest.clear();
  check_inputs(now, load_inputs(scratch.at("inputs.json")));
  CHECK(now[0].digest == files[0].digest);
  scratch.write("none.png", "is there");
  now[1].stamp = stamp_file(now[1].path);
  CHECK_THROWS_WITH(check_inputs(now, load_inputs(scratch.at("inputs.json"))),
                    Contains("none.png: the file isn't what it was when the run began: got 8 "
                             "bytes, wanted no file"));
  save_text(scratch.at("inputs.json"), "[]");
  CHECK_THROWS_WITH(load_inputs(scratch.at("inputs.json")), Contains("not a list of inputs"));
}

TEST_CASE("a long medium is known by its ends and blocks, wherever it was copied to") {
  const ScratchFolder scratch;
  const std::string a = scratch.write("a", std::string(9 << 20, 'x'));
  const std::string b = scratch.write("b", std::string(9 << 20, 'x'));
  fs::last_write_time(b, fs::file_time_type::clock::now() - std::chrono::hours(9));
  CHECK(digest_content(a, kWholeMedia) == digest_content(b, kWholeMedia));
  CHECK(digest_content(a, kWholeMedia) != digest_content(a, 10 << 20));
  std::stop_source stop;
  stop.request_stop();
  CHECK(digest_content(a, 10 << 20, stop.get_token()).empty());
}

}  // namespace
}  // namespace vlm::train
