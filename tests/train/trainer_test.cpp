// Losses, norms and trained weights against PEFT's and torch's own runs; and whole runs of the
// trainer.
#include "train/trainer.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/train/golden_batch.h"
#include "train/model/loss.h"
#include "train/model/parameters.h"
#include "train/plan/run_plan.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

struct GoldenRun {
  std::string name;
  std::int64_t steps, batches_a_step;
  std::string adapter = "train/adapter_start";
  std::string values = "train/golden.safetensors";
};

AdamW make_optimizer(VisionLanguageModel& model, bool lora, const Json& settings) {
  NamedTensors trained;
  for (const auto& item : model.module().named_parameters()) {
    const bool is_trained = !lora || is_lora_parameter(item.key());
    item.value().set_requires_grad(is_trained);
    if (is_trained) trained.emplace_back(item.key(), item.value());
  }
  return AdamW(trained, {.beta1 = settings["adam_beta1"],
                         .beta2 = settings["adam_beta2"],
                         .epsilon = settings["adam_epsilon"],
                         .weight_decay = settings["weight_decay"]});
}

TEST_CASE("ten LoRA and DoRA steps, accumulation and full training: the reference's numbers") {
  const Golden batches_of(kTinyModel + "/train/golden.safetensors");
  const Json settings = load_json(fixture(kTinyModel + "/train/golden.json"))["settings"];
  for (const GoldenRun& run :
       {GoldenRun{"lora", 10, 1}, GoldenRun{"accum", 5, 2}, GoldenRun{"full", 5, 1},
        GoldenRun{"dora", 10, 1, "methods/dora_start", "methods/dora_run.safetensors"}}) {
    INFO(run.name);
    const Golden golden(kTinyModel + "/" + run.values);
    const ModelPtr model = load_model(fixture(kTinyModel), {});
    const bool lora = run.name != "full";
    if (lora) load_adapter(model->module(), fixture(kTinyModel + "/" + run.adapter));
    model->module().train();
    AdamW optimizer = make_optimizer(*model, lora, settings);
    std::vector<double> losses, norms;
    int next = 0;
    for (std::int64_t step = 0; step < run.steps; ++step) {
      std::vector<data::Batch> batches;
      std::int64_t labels = 0;
      for (std::int64_t i = 0; i < run.batches_a_step; ++i) {
        batches.push_back(golden_batch(batches_of, next++ % 3));
        labels += batches.back().label_count;
      }
      double loss = 0;
      for (const data::Batch& batch : batches) {
        const at::Tensor part = loss_sum(*model, batch) / static_cast<double>(labels);
        part.backward();
        loss += part.item<double>();
      }
      losses.push_back(loss);
      norms.push_back(clip_grad_norm(optimizer.parameters(), settings["max_grad_norm"]));
      optimizer.step(golden[run.name + ".learning_rates"][step].item<double>());
      optimizer.zero_grad();
    }
    check_close(at::tensor(losses, at::kDouble), golden[run.name + ".losses"], 1e-5);
    check_close(at::tensor(norms, at::kDouble), golden[run.name + ".grad_norms"], 1e-5);
    std::int64_t compared = 0;
    for (const auto& [name, parameter] : optimizer.parameters()) {
      for (const std::string& key :
           {name, "base_model.model." + name, "base_model.model." + name + ".weight"}) {
        if (!golden.has(run.name + ".final." + key)) continue;
        INFO(name);
        // Adam divides by the gradient's size: rounding alone moves weights by up to 7e-5 of the
        // largest.
        check_close(parameter, golden[run.name + ".final." + key], 1e-3);
        ++compared;
      }
    }
    CHECK(compared > 0);
  }
}

TEST_CASE("biases and norms don't decay") {
  const at::Tensor matrix = at::zeros({2, 2}), vector = at::zeros({2});
  CHECK(has_weight_decay("model.text_model.layers.0.mlp.up_proj.weight", matrix));
  CHECK_FALSE(has_weight_decay("model.vision_model.encoder.layers.0.mlp.fc1.bias", vector));
  CHECK_FALSE(has_weight_decay("model.text_model.layers.0.input_layernorm.weight", vector));
  CHECK_FALSE(has_weight_decay("model.text_model.norm.weight", vector));
  CHECK_FALSE(has_weight_decay("mlp1.0.weight", vector));  // of a sequence
  CHECK(has_weight_decay("vision_model.encoder.layers.0.ls1", vector));
}

// Four questions about two of the fixtures' pictures.
void write_data(const std::filesystem::path& path) {
  std::ofstream out(path);
  const auto line = [&](const char* picture, const char* question, const char* answer) {
    const Json row = {
        {"messages",
         {{{"role", "user"},
           {"content", {{{"type", "image"}}, {{"type", "text"}, {"text", question}}}}},
          {{"role", "assistant"}, {"content", {{{"type", "text"}, {"text", answer}}}}}}},
        {"images", {fixture(std::string("pictures/") + picture).string()}}};
    out << row.dump() << "\n";
  };
  line("square.png", "What is this?", "a square");
  line("wide.png", "What is this?", "a wide one");
  line("square.png", "Is it wide?", "no");
  line("wide.png", "Is it wide?", "yes");
}

TrainConfig make_config(const std::filesystem::path& folder, const std::string& output) {
  write_data(folder / "data.jsonl");
  TrainConfig config;
  config.model_name_or_path = fixture(kTinyModel).string();
  config.output_dir = (folder / output).string();
  config.train_files = {(folder / "data.jsonl").string()};
  config.per_device_train_batch_size = 2;
  config.max_steps = 6;
  config.learning_rate = 1e-2;
  config.lora_dropout = 0.1;
  config.logging_steps = 1;
  config.save_steps = 3;
  config.augmentation.shift = 0.1;
  return config;
}

const TrainOptions kOnCpu = {.runtime = {.device = "cpu", .threads = 1}};

std::vector<Json> read_metrics(const std::filesystem::path& folder) {
  std::vector<Json> rows;
  std::ifstream in(folder / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

TEST_CASE("a resumed run equals an uninterrupted one") {
  const ScratchFolder folder;
  for (const std::string method : {"lora", "full"}) {
    INFO(method);
    TrainConfig whole = make_config(folder.path(), method + "_whole");
    whole.method = method;
    Trainer(whole, kOnCpu).run();

    TrainConfig parts = whole;
    parts.output_dir = (folder.path() / (method + "_parts")).string();
    Trainer(parts, kOnCpu).run();
    // What an interruption after step 5 would leave: the checkpoint of step 3 and metrics that go
    // on past it.
    std::filesystem::remove_all(parts.output_dir + "/checkpoint-6");
    Trainer(parts, kOnCpu).run();

    const std::string file = method == "lora" ? "adapter_model.safetensors" : "model.safetensors";
    const SafetensorsFile first(whole.output_dir + "/" + file),
        second(parts.output_dir + "/" + file);
    for (const auto& [key, entry] : first.entries())
      CHECK(first.tensor(key).equal(second.tensor(key)));
    const auto a = read_metrics(whole.output_dir), b = read_metrics(parts.output_dir);
    REQUIRE(a.size() == 6);
    REQUIRE(b.size() == 6);
    for (std::size_t i = 0; i < 6; ++i) {
      for (const char* key : {"step", "epoch", "loss", "grad_norm", "learning_rate", "padding"})
        CHECK(a[i][key] == b[i][key]);
    }
    CHECK(a[0]["epoch"] == 0.5);  // behind the step
    CHECK(a[5]["epoch"] == 3);
  }
}

// Runs the config to its end, once as a whole and once from the checkpoint of its middle.
void check_resume(const TrainConfig& config, const std::string& file) {
  Trainer(config, kOnCpu).run();
  const std::string whole = load_text(config.output_dir + "/" + file);
  std::filesystem::remove_all(config.output_dir + "/checkpoint-6");
  Trainer(config, kOnCpu).run();
  CHECK(load_text(config.output_dir + "/" + file) == whole);
}

TEST_CASE("every method and optimizer goes on from a checkpoint bit by bit") {
  const ScratchFolder folder;
  TrainConfig qlora = make_config(folder.path(), "qlora");
  qlora.method = "qlora";
  qlora.optim = "adamw_8bit";
  qlora.r = 64;  // more than 4096 values, so that moments are in 8 bits
  qlora.modules_to_save = {"connector"};
  check_resume(qlora, "adapter_model.safetensors");
  TrainConfig dora = make_config(folder.path(), "dora");
  dora.method = "dora";
  dora.optim = "sgd";
  dora.sgd_momentum = 0.9;
  dora.bias = "all";
  dora.lr_scheduler_type = "warmup_stable_decay";
  dora.lr_scheduler_kwargs.num_decay_steps = 2;
  check_resume(dora, "adapter_model.safetensors");
  TrainConfig pissa = make_config(folder.path(), "pissa");
  pissa.init_lora_weights = "pissa";
  pissa.loraplus_lr_ratio = 4;
  check_resume(pissa, "adapter_model.safetensors");
}

TEST_CASE("rates of parts and of LoRA+, and what is trained") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "rates");
  config.target_parts = {"text_model", "vision_model", "connector"};
  config.target_modules = std::vector<std::string>{"q_proj", "proj"};
  config.modules_to_save = {"lm_head"};
  config.bias = "lora_only";
  config.vision_lr = 1e-3;
  config.text_lr = 2e-2;
  config.loraplus_lr_ratio = 3;
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  attach_lora(model->module(), config.lora(), at::detail::createCPUGenerator(1));
  const TrainedParameters chosen = choose_parameters(*model, config, config.lora());
  std::map<std::string, double> factors;
  for (std::size_t i = 0; i < chosen.parameters.size(); ++i) {
    factors[chosen.parameters[i].first] = chosen.rate_factors[i];
  }
  CHECK(factors.size() == 2 * 5 + 2 + 1);  // A and B of five layers, two biases, the head
  CHECK(factors["lm_head.weight"] == Approx(2));
  const std::string vision = "model.vision_model.encoder.layers.1.self_attn.q_proj.";
  CHECK(factors[vision + "lora_A.weight"] == Approx(0.1));
  CHECK(factors[vision + "lora_B.weight"] == Approx(0.3));
  CHECK(factors[vision + "bias"] == Approx(0.3));
  CHECK(factors["model.connector.modality_projection.proj.lora_B.weight"] == Approx(3));
  CHECK(factors["model.text_model.layers.0.self_attn.q_proj.lora_A.weight"] == Approx(2));
  for (const auto& item : model->module().named_parameters()) {
    CHECK(item.value().requires_grad() == (factors.count(item.key()) > 0));
  }
  config.freeze = {"vision_model"};
  CHECK_THROWS_WITH(choose_parameters(*model, config, config.lora()),
                    Contains("vision_lr: nothing is trained in the part"));
}

TEST_CASE("an adapter of another method is not gone on with") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "other");
  config.adapter = fixture(kTinyModel + "/methods/dora").string();
  CHECK_THROWS_WITH(Trainer(config, kOnCpu),
                    Contains("the adapter is of another method: got dora, wanted lora"));
  config.method = "dora";
  config.max_steps = 1;
  Trainer(config, kOnCpu).run();
}

TEST_CASE("twenty steps learn four samples by heart") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "overfit");
  config.max_steps = 60;
  config.lora_dropout = 0;
  config.augmentation.shift = 0;
  config.r = 16;
  config.lora_alpha = 32;
  config.per_device_train_batch_size = 4;
  config.eval_files = config.train_files;
  config.lr_scheduler_type = "constant";
  Trainer(config, kOnCpu).run();
  const auto rows = read_metrics(config.output_dir);
  const double first = rows[0]["loss"], last = rows.back()["eval_loss"];
  CHECK(first > 2);
  CHECK(last < 0.1);
  for (const char* key : {"samples_per_second", "peak_rss_mb"})
    CHECK(rows[0][key].get<double>() > 0);
}

TEST_CASE("freezing and gradient checkpointing") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "plain");
  config.method = "full";
  config.freeze = {"vision_model", "lm_head"};
  Trainer(config, kOnCpu).run();
  TrainConfig checkpointed = config;
  checkpointed.output_dir = (folder.path() / "checkpointed").string();
  checkpointed.gradient_checkpointing = true;
  Trainer(checkpointed, kOnCpu).run();
  const SafetensorsFile before(fixture(kTinyModel + "/model.safetensors"));
  const SafetensorsFile after(config.output_dir + "/model.safetensors");
  const SafetensorsFile again(checkpointed.output_dir + "/model.safetensors");
  for (const auto& [key, entry] : before.entries()) {
    INFO(key);
    const bool is_frozen = key.find("vision_model") != std::string::npos || key == "lm_head.weight";
    CHECK(after.tensor(key).equal(before.tensor(key)) == is_frozen);
    check_close(again.tensor(key), after.tensor(key), 1e-4);
  }
}

TEST_CASE("text takes its place in a run that trains only what pictures pass through") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "out");
  config.target_modules = std::vector<std::string>{"proj"};
  config.target_parts = {"connector"};
  const auto write_rows = [&](const std::vector<std::string>& images) {
    std::ofstream out(folder.path() / "data.jsonl");
    for (const std::string& image : images) {
      Json row = {{"question", "Why?"}, {"answer", "No"}};
      if (!image.empty()) row["image"] = fixture("pictures/" + image).string();
      out << row.dump() << "\n";
    }
  };
  for (const char* optim : {"adamw", "adamw_8bit", "sgd"}) {
    INFO(optim);
    config.optim = optim;
    config.output_dir = (folder.path() / optim).string();
    write_rows({"", "", "", ""});
    const auto adapter = [&] {
      Trainer({config}, {.runtime = kOnCpu.runtime, .restart = true}).run();
      return SafetensorsFile(config.output_dir + "/adapter_model.safetensors");
    };
    const std::string trained =
        "base_model.model.model.connector.modality_projection.proj.lora_B.weight";
    CHECK(adapter().tensor(trained).count_nonzero().item<std::int64_t>() == 0);
    for (const Json& row : read_metrics(config.output_dir)) {
      CHECK(row["loss"].get<double>() > 0);
      CHECK(row["grad_norm"] == 0);
    }
    write_rows({"wide.png", "", "square.png", ""});
    CHECK(adapter().tensor(trained).count_nonzero().item<std::int64_t>() > 0);
  }
  CHECK(make_plan(config, {.runtime = kOnCpu.runtime, .memory_gb = 1000}).fits());
}

TEST_CASE("kept pictures change nothing, though dropout lies in a tower that isn't trained") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "first");
  config.target_modules = "all-linear";
  config.freeze = {"vision_model", "connector"};
  config.augmentation.shift = 0;
  const auto train = [&](const std::string& name, const std::string& cache) {
    config.output_dir = (folder.path() / name).string();
    config.feature_cache = cache;
    Trainer(config, kOnCpu).run();
    return load_text(config.output_dir + "/adapter_model.safetensors");
  };
  const std::string cache = (folder.path() / "features").string();
  const std::string wanted = train("first", cache);
  CHECK(train("second", cache) == wanted);
  CHECK(train("without", "off") == wanted);
}

TEST_CASE("a run with another config is not resumed, unless it is begun anew") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "run");
  Trainer(config, kOnCpu).run();
  config.learning_rate = 1e-3;
  CHECK_THROWS_WITH(
      Trainer(config, kOnCpu),
      Contains("the run to be resumed had another config: got other values of learning_rate"));
  Trainer({config}, {.runtime = kOnCpu.runtime, .restart = true}).run();
  CHECK(read_metrics(config.output_dir).size() == 6);
}

TEST_CASE("data that can't be trained on ends the run with its place") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path(), "run");
  config.max_length = 10;
  CHECK_THROWS_WITH(Trainer(config, kOnCpu).run(), Contains("sample is too long: got"));
  config = make_config(folder.path(), "other");
  config.learning_rate = 1000;
  config.max_grad_norm = 0;
  config.lr_scheduler_type = "constant";
  config.max_steps = 50;
  CHECK_THROWS_WITH(Trainer(config, kOnCpu).run(), Contains(" is not finite: got "));
}

}  // namespace
}  // namespace vlm::train
