// Fine-tuning on the GPU: the CPU's losses step by step, and its result.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/gpu/training.h"
#include "tests/support/simulated_cuda/device.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

struct Setting {
  const char* name;
  Words values;
};

const std::vector<Setting> kSettings = {
    {"plain", {}},
    {"packing", {"packing=true", "per_device_train_batch_size=4", "share_pictures=true"}},
    {"accumulation", {"gradient_accumulation_steps=2"}},
    {"batches", {"per_device_train_batch_size=2", "optim=sgd", "sgd_momentum=0.9"}},
    {"checkpointing", {"gradient_checkpointing=true"}},
    {"8-bit Adam", {"optim=adamw_8bit", "r=64"}}};

const std::vector<Setting> kAdapterSettings = {
    {"all layers", {"target_modules=all-linear", "per_device_train_batch_size=2"}},
    {"frozen tower",
     {"target_modules=all-linear", R"(freeze=["vision_model","connector"])", "max_steps=6"}},
    {"biases", {"bias=all", "target_modules=all-linear"}},
    {"modules", {R"(modules_to_save=["connector"])"}},
    {"tokens", {"trainable_token_indices=[5,6,7]"}},
    {"embeddings", {R"(target_modules=["q_proj","embed_tokens","lm_head"])"}},
    {"rslora", {"use_rslora=true", "loraplus_lr_ratio=4", "init_lora_weights=gaussian"}}};

void check_settings(const std::string& method, const std::vector<Setting>& settings) {
  const ScratchFolder folder;
  for (const auto& [name, values] : settings) {
    INFO(method << ", " << name);
    Words words = values;
    words.push_back("method=" + method);
    const std::string output = method + " " + name;
    fine_tune(folder, output + " cpu", "cpu", words);
    fine_tune(folder, output + " gpu", "cuda", words);
    // Moments of 8 bits: rounding may choose the neighbour of a code.
    const double tolerance = std::string(name) == "8-bit Adam" ? 0.03 : 5e-3;
    check_same_run(folder.path() / (output + " gpu"), folder.path() / (output + " cpu"), tolerance);
  }
}

TEST_CASE("LoRA on the GPU takes the CPU's steps") {
  check_settings("lora", kSettings);
  check_settings("lora", kAdapterSettings);
}

TEST_CASE("DoRA on the GPU takes the CPU's steps") {
  check_settings("dora", kSettings);
  check_settings("dora", {kAdapterSettings[0], kAdapterSettings[2], kAdapterSettings[5]});
}

TEST_CASE("full fine-tuning on the GPU takes the CPU's steps") {
  check_settings("full", kSettings);
  check_settings("full", {{"frozen", {R"(freeze=["vision_model"])"}},
                          {"rates", {"vision_lr=0.001", "text_lr=0.01"}}});
}

TEST_CASE("QLoRA on the GPU takes the CPU's steps") {
  check_settings("qlora", kSettings);
  check_settings("qlora", kAdapterSettings);
}

TEST_CASE("kept picture features are the same on the GPU") {
  const ScratchFolder folder;
  const Words keep = {"feature_cache=" + folder.at("features"), "max_steps=8"};
  fine_tune(folder, "cpu", "cpu", {"max_steps=8"});
  fine_tune(folder, "gpu", "cuda", keep);
  check_same_run(folder.path() / "gpu", folder.path() / "cpu");
  CHECK(fs::exists(folder.path() / "features"));
  const auto again = counts_of([&] { fine_tune(folder, "again", "cuda", keep); });
  check_same_run(folder.path() / "again", folder.path() / "cpu");
  CHECK(again.by_name.count("convolution") == 0);  // no picture was encoded
}

TEST_CASE("evaluation with answers on the GPU has the CPU's rows") {
  for (const std::string method : {"lora", "qlora", "full"}) {
    INFO(method);
    const ScratchFolder folder;
    const Words evaluated = {"eval_files=[\"" + folder.at("data.jsonl") + "\"]", "eval_steps=2",
                             "eval_metrics=[\"anls\"]", "eval_max_new_tokens=5",
                             "method=" + method};
    fine_tune(folder, "cpu", "cpu", evaluated);
    fine_tune(folder, "gpu", "cuda", evaluated);
    check_same_run(folder.path() / "gpu", folder.path() / "cpu");
  }
}

TEST_CASE("a run on the GPU goes on from a checkpoint bit by bit, dropout and all") {
  for (const Words& method : std::vector<Words>{{"method=lora"},
                                                {"method=qlora", "optim=adamw_8bit", "r=64"},
                                                {"method=dora", "gradient_checkpointing=true"},
                                                {"method=full"}}) {
    INFO(method[0]);
    const ScratchFolder folder;
    Words settings = method;
    settings.insert(settings.end(), {"lora_dropout=0.2", "max_steps=6", "save_steps=3"});
    if (method[0] == "method=full") settings.erase(settings.end() - 3);
    fine_tune(folder, "run", "cuda", settings);
    const fs::path output = folder.path() / "run";
    const std::string whole = read_file(result_file(output));
    fs::remove_all(output / "checkpoint-6");
    fine_tune(folder, "run", "cuda", settings);
    CHECK(read_file(result_file(output)) == whole);
  }
}

TEST_CASE("a run of the CPU goes on on the GPU") {
  const ScratchFolder folder;
  const Words settings = {"max_steps=6", "save_steps=3"};
  fine_tune(folder, "cpu", "cpu", settings);
  fine_tune(folder, "both", "cpu", settings);
  fs::remove_all(folder.path() / "both/checkpoint-6");
  fine_tune(folder, "both", "cuda", settings);
  check_same_run(folder.path() / "both", folder.path() / "cpu");
}

TEST_CASE("in bfloat16 a run on the GPU comes near the one in float32") {
  const ScratchFolder folder;
  for (const std::string method : {"lora", "dora", "qlora", "full"}) {
    for (const std::string rest : {"bias=none", "bias=all", "packing=true"}) {
      if (method == "full" && rest == "bias=all") continue;
      INFO(method << " " << rest);
      Words settings = {"method=" + method, "learning_rate=0.001"};
      if (method != "full" || rest == "packing=true") settings.push_back(rest);
      if (rest == "packing=true") settings.push_back("per_device_train_batch_size=4");
      fine_tune(folder, method + rest + "narrow", "cuda", settings, "bfloat16");
      fine_tune(folder, method + rest + "wide", "cpu", settings);
      const auto narrow = repeatable_metrics(folder.path() / (method + rest + "narrow")),
                 wide = repeatable_metrics(folder.path() / (method + rest + "wide"));
      REQUIRE(narrow.size() == wide.size());
      for (std::size_t i = 0; i < wide.size(); ++i) {
        CHECK(narrow[i]["loss"].get<double>() ==
              Approx(wide[i]["loss"].get<double>()).epsilon(0.02));
      }
    }
  }
}

// Steps of a millionth, which weights in bfloat16 wouldn't notice.
TEST_CASE("what is trained on the GPU is float32, beside a frozen base in bfloat16") {
  const ScratchFolder folder;
  const SafetensorsFile base(fixture("smolvlm_tiny") / "model.safetensors");
  const Words adapter = {R"(modules_to_save=["connector"])", "bias=all"};
  for (const std::string method : {"lora", "qlora", "full"}) {
    INFO(method);
    Words settings = {"method=" + method, "learning_rate=1e-6", "max_steps=3"};
    if (method != "full") settings.insert(settings.end(), adapter.begin(), adapter.end());
    fine_tune(folder, method, "cuda", settings, method == "full" ? "bfloat16" : "auto");
    const SafetensorsFile result(result_file(folder.path() / method));
    int compared = 0;
    for (const auto& [key, entry] : result.entries()) {
      INFO(key);
      CHECK(entry.dtype == at::kFloat);
      const std::string prefix = "base_model.model.";
      const std::string name = key.starts_with(prefix) ? key.substr(prefix.size()) : key;
      if (name.find("connector") == std::string::npos || !base.entries().count(name)) continue;
      const double change =
          (result.tensor(key) - base.tensor(name).to(at::kFloat)).abs().max().item<double>();
      CHECK(change > 5e-7);
      CHECK(change < 5e-6);
      ++compared;
    }
    CHECK(compared > 0);
  }
  fine_tune(folder, "named", "cuda", {"max_steps=3"}, "bfloat16");
  fine_tune(folder, "default", "cuda", {"max_steps=3"}, "auto");
  CHECK(repeatable_metrics(folder.path() / "named") ==
        repeatable_metrics(folder.path() / "default"));
}

TEST_CASE("a run that doesn't fit the GPU's memory ends with an error") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  Words words = training_arguments(folder.path(), "out", {});
  *(std::find(words.begin(), words.end(), "--device") + 1) = "cuda";
  simulated_cuda::limit_bytes(simulated_cuda::current_bytes() + 300'000);
  const ProgramResult result = run_here(words);
  simulated_cuda::limit_bytes(simulated_cuda::kCapacity);
  CHECK(result.code == 1);
  CHECK_THAT(result.err, Contains("out of memory"));
}

// Memory for a batch of one picture, not for one of four.
TEST_CASE("a batch that doesn't fit the GPU's memory is taken in parts, with the same result") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  for (const Words& batches :
       {Words{"per_device_train_batch_size=4"},
        Words{"packing=true", "per_device_train_batch_size=4", "share_pictures=false"},
        Words{"packing=true", "per_device_train_batch_size=4"}}) {
    INFO(batches.front());
    fs::remove_all(folder.path() / "small");
    fs::remove_all(folder.path() / "large");
    Words settings = batches;
    settings.insert(settings.end(), {"target_modules=all-linear", "optim=sgd"});
    const std::int64_t before = simulated_cuda::current_bytes();
    simulated_cuda::reset_peak();
    fine_tune(folder, "large", "cuda", settings);
    const std::int64_t peak = simulated_cuda::peak_bytes() - before;
    simulated_cuda::limit_bytes(simulated_cuda::current_bytes() + peak * 9 / 10);
    const std::string said = fine_tune(folder, "small", "cuda", settings);
    simulated_cuda::limit_bytes(simulated_cuda::kCapacity);
    CHECK_THAT(said, Contains("out of memory in step 1: from here on a batch is taken in 2 parts"));
    check_same_run(folder.path() / "small", folder.path() / "large");
    std::ifstream in(folder.path() / "small/metrics.jsonl");
    std::string row;
    std::getline(in, row);
    CHECK(Json::parse(row)["peak_device_mb"].get<double>() > 0.1);
  }
}

TEST_CASE("one sample that doesn't fit the GPU's memory ends the run and keeps what was learned") {
  const ScratchFolder folder;
  const Words settings = {"shuffle=false", "max_steps=3"};
  write_questions(folder.path() / "data.jsonl", 3);
  // The third sample is much longer than those before.
  std::ifstream in(folder.path() / "data.jsonl");
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  std::string words;
  for (int i = 0; i < 60; ++i) words += "two dogs ";
  rows.at(2)["messages"][1]["content"][0]["text"] = words;
  std::ofstream out(folder.path() / "data.jsonl");
  for (const Json& row : rows) out << row.dump() << "\n";
  out.close();
  const std::int64_t before = simulated_cuda::current_bytes();
  simulated_cuda::reset_peak();
  fine_tune(folder, "whole", "cuda", settings);
  const std::int64_t peak = simulated_cuda::peak_bytes() - before;
  simulated_cuda::limit_bytes(simulated_cuda::current_bytes() + peak - 100'000);
  const ProgramResult result = try_training(folder, "cut", "cuda", settings);
  simulated_cuda::limit_bytes(simulated_cuda::kCapacity);
  CHECK(result.code == 1);
  CHECK_THAT(result.err, Contains("step 3: out of memory in a training step"));
  CHECK_THAT(result.err, Contains("gradient_checkpointing"));
  CHECK(fs::exists(folder.path() / "cut/checkpoint-2"));
  fine_tune(folder, "cut", "cuda", settings);
  check_same_run(folder.path() / "cut", folder.path() / "whole");
}

}  // namespace
}  // namespace vlm
