// Fine-tuning on the GPU: the CPU's losses step by step, its result, and what a step costs.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/gpu/program.h"
#include "tests/support/simulated_cuda/device.h"
#include "tests/support/small_training.h"
#include "tests/support/tensors.h"
#include "train/config/train_config.h"
#include "train/plan/run_plan.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

using Words = std::vector<std::string>;
using simulated_cuda::DeviceCounts;

// `vlm finetune` into folder/output.
ProgramResult try_training(const ScratchFolder& folder, const std::string& output,
                           const std::string& device, const Words& settings,
                           const std::string& dtype = "float32") {
  if (!fs::exists(folder.path() / "data.jsonl")) write_questions(folder.path() / "data.jsonl", 4);
  Words more = {"lora_dropout=0", "max_steps=4", "save_steps=0", "feature_cache=off"};
  more.insert(more.end(), settings.begin(), settings.end());
  Words words = training_arguments(folder.path(), output, more);
  *(std::find(words.begin(), words.end(), "--device") + 1) = device;
  words.insert(words.end(), {"--dtype", dtype});
  return run_here(words);
}

// The same, which must succeed; stderr.
std::string train(const ScratchFolder& folder, const std::string& output, const std::string& device,
                  const Words& settings, const std::string& dtype = "float32") {
  const ProgramResult result = try_training(folder, output, device, settings, dtype);
  CAPTURE(settings, result.err);
  REQUIRE(result.code == 0);
  return result.err;
}

fs::path result_file(const fs::path& output) {
  const fs::path adapter = output / "adapter_model.safetensors";
  return fs::exists(adapter) ? adapter : output / "model.safetensors";
}

// The same steps, and the same weights at the end, but for rounding. A bias of all keys changes no
// attention: its gradient is rounding alone, of which Adam makes a step, so it isn't compared.
void check_same_run(const fs::path& found, const fs::path& wanted, double tolerance = 5e-3) {
  const std::vector<Json> steps = repeatable_metrics(wanted), others = repeatable_metrics(found);
  REQUIRE(steps.size() > 0);
  REQUIRE(steps.size() == others.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    for (const auto& [key, value] : steps[i].items()) {
      INFO(key << " of row " << i);
      REQUIRE(others[i].contains(key));
      if (!value.is_number_float()) continue;
      CHECK(others[i][key].get<double>() == Approx(value.get<double>()).epsilon(2e-3).margin(1e-6));
    }
  }
  const SafetensorsFile a(result_file(found)), b(result_file(wanted));
  REQUIRE(a.entries().size() == b.entries().size());
  for (const auto& [key, entry] : b.entries()) {
    INFO(key);
    REQUIRE(a.entries().at(key).dtype == entry.dtype);
    if (key.find("k_proj") != std::string::npos && key.ends_with("bias")) continue;
    check_close(a.tensor(key).to(at::kFloat), b.tensor(key).to(at::kFloat), tolerance);
  }
}

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
    train(folder, output + " cpu", "cpu", words);
    train(folder, output + " gpu", "cuda", words);
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
  train(folder, "cpu", "cpu", {"max_steps=8"});
  train(folder, "gpu", "cuda", keep);
  check_same_run(folder.path() / "gpu", folder.path() / "cpu");
  CHECK(fs::exists(folder.path() / "features"));
  const auto again = counts_of([&] { train(folder, "again", "cuda", keep); });
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
    train(folder, "cpu", "cpu", evaluated);
    train(folder, "gpu", "cuda", evaluated);
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
    train(folder, "run", "cuda", settings);
    const fs::path output = folder.path() / "run";
    const std::string whole = read_file(result_file(output));
    fs::remove_all(output / "checkpoint-6");
    train(folder, "run", "cuda", settings);
    CHECK(read_file(result_file(output)) == whole);
  }
}

TEST_CASE("a run of the CPU goes on on the GPU") {
  const ScratchFolder folder;
  const Words settings = {"max_steps=6", "save_steps=3"};
  train(folder, "cpu", "cpu", settings);
  train(folder, "both", "cpu", settings);
  fs::remove_all(folder.path() / "both/checkpoint-6");
  train(folder, "both", "cuda", settings);
  check_same_run(folder.path() / "both", folder.path() / "cpu");
}

TEST_CASE("in bfloat16 a run on the GPU comes near the one in float32") {
  const ScratchFolder folder;
  for (const std::string method : {"lora", "dora", "qlora", "full"}) {
    for (const std::string rest : {"bias=none", "bias=all"}) {
      if (method == "full" && rest == "bias=all") continue;
      INFO(method << " " << rest);
      Words settings = {"method=" + method, "learning_rate=0.001"};
      if (method != "full") settings.push_back(rest);
      train(folder, method + rest + "narrow", "cuda", settings, "bfloat16");
      train(folder, method + rest + "wide", "cpu", settings);
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
    train(folder, method, "cuda", settings, method == "full" ? "bfloat16" : "auto");
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
  train(folder, "named", "cuda", {"max_steps=3"}, "bfloat16");
  train(folder, "default", "cuda", {"max_steps=3"}, "auto");
  CHECK(repeatable_metrics(folder.path() / "named") ==
        repeatable_metrics(folder.path() / "default"));
}

// What a further step costs: of two runs of different lengths the difference.
DeviceCounts cost_of_step(const Words& settings, const std::string& dtype = "float32") {
  const ScratchFolder folder;
  const auto run = [&](int steps) {
    Words words = settings;
    words.push_back("max_steps=" + std::to_string(steps));
    return counts_of([&] { train(folder, std::to_string(steps), "cuda", words, dtype); });
  };
  DeviceCounts cost = run(12) - run(4);
  for (std::int64_t* number : {&cost.operators, &cost.waits, &cost.uploads, &cost.downloads,
                               &cost.bytes_up, &cost.bytes_down, &cost.pageable}) {
    *number /= 8;
  }
  return cost;
}

void check_cost(const Words& settings, std::int64_t operators, std::int64_t waits,
                const std::string& dtype = "float32") {
  const DeviceCounts cost = cost_of_step(settings, dtype);
  CAPTURE(settings, dtype, cost.operators, cost.waits, cost.uploads, cost.downloads);
  CHECK(cost.operators <= operators);
  CHECK(cost.waits <= waits);
  CHECK(cost.pageable == 0);
}

// Bounds so that what was fused stays fused. The model has two layers in each tower.
TEST_CASE("what a step costs on the GPU") {
  check_cost({}, 277, 1);
  check_cost({"gradient_accumulation_steps=2"}, 575, 1);
  check_cost({"packing=true", "per_device_train_batch_size=4"}, 385, 1);
  check_cost({"method=qlora"}, 558, 1);
  check_cost({"optim=adamw_8bit", "r=64"}, 318, 1);
  check_cost({"method=full"}, 283, 1);
  check_cost({}, 330, 1, "bfloat16");
  check_cost({"method=full"}, 398, 1, "bfloat16");
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
    train(folder, "large", "cuda", settings);
    const std::int64_t peak = simulated_cuda::peak_bytes() - before;
    simulated_cuda::limit_bytes(simulated_cuda::current_bytes() + peak * 9 / 10);
    const std::string said = train(folder, "small", "cuda", settings);
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
  train(folder, "whole", "cuda", settings);
  const std::int64_t peak = simulated_cuda::peak_bytes() - before;
  simulated_cuda::limit_bytes(simulated_cuda::current_bytes() + peak - 100'000);
  const ProgramResult result = try_training(folder, "cut", "cuda", settings);
  simulated_cuda::limit_bytes(simulated_cuda::kCapacity);
  CHECK(result.code == 1);
  CHECK_THAT(result.err, Contains("step 3: out of memory in a training step"));
  CHECK_THAT(result.err, Contains("gradient_checkpointing"));
  CHECK(fs::exists(folder.path() / "cut/checkpoint-2"));
  train(folder, "cut", "cuda", settings);
  check_same_run(folder.path() / "cut", folder.path() / "whole");
}

Json plan_on(const std::string& device, const ScratchFolder& folder, const Words& settings) {
  Words words = training_arguments(folder.path(), "out", settings);
  words[0] = "plan";
  *(std::find(words.begin(), words.end(), "--device") + 1) = device;
  words.insert(words.end(), {"--format", "json", "--dtype", "float32"});
  return Json::parse(output_of(words));
}

TEST_CASE("the plan on the GPU has the CPU's weights and steps") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  const Words settings = {"feature_cache=off", "lora_dropout=0"};
  const Json host = plan_on("cpu", folder, settings), gpu = plan_on("cuda", folder, settings);
  for (const char* key : {"steps", "samples", "largest_batch_tokens", "largest_batch_tiles"}) {
    CHECK(gpu[key] == host[key]);
  }
  for (const char* part : {"weights", "adapters", "optimizer", "gradients"}) {
    CHECK(gpu["memory_mb"][part] == host["memory_mb"][part]);
  }
}

// What the plan of folder/config.json says of the device, MB; not rounded, as in what `vlm plan`
// prints.
double planned_device_mb(const ScratchFolder& folder, const Words& settings) {
  const train::TrainConfig config = train::load_train_config(folder.at("config.json"), settings);
  const RuntimeOptions runtime = {.device = "cuda", .dtype = "float32", .threads = 1};
  double sum = 0;
  for (const auto& [part, megabytes] : train::make_plan(config, {.runtime = runtime}).memory_mb) {
    if (part != "pictures read ahead" && part != "program") sum += megabytes;
  }
  return sum;
}

TEST_CASE("a run takes of the GPU's memory what the plan says") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  for (const std::string method : {"lora", "dora", "qlora", "full"}) {
    INFO(method);
    const Words settings = {"method=" + method, "feature_cache=off", "lora_dropout=0"};
    training_arguments(folder.path(), "planned");
    const double planned = planned_device_mb(folder, settings);
    const std::int64_t before = simulated_cuda::current_bytes();
    simulated_cuda::reset_peak();
    train(folder, method, "cuda", settings);
    const double peak = static_cast<double>(simulated_cuda::peak_bytes() - before) / 1e6;
    CHECK(peak == Approx(planned).margin(0.25));  // tensors of the tiny model take half a megabyte
  }
}

}  // namespace
}  // namespace vlm
