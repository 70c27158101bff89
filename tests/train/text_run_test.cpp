// Fine-tuning of text models: PEFT's numbers, every method, packed and checkpointed.
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "train/model/loss.h"
#include "train/optimizer/optimizer.h"
#include "train/trainer.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

const char* const kTextFolders[] = {"llama_tiny", "qwen2_tiny", "qwen3_tiny", "phi3_tiny"};

data::Batch next_token_batch(const at::Tensor& ids) {
  data::Batch batch;
  batch.inputs.input_ids = ids;
  batch.labels = at::full_like(ids, data::kIgnoredLabel);
  batch.labels.narrow(1, 0, ids.size(1) - 1).copy_(ids.narrow(1, 1, ids.size(1) - 1));
  batch.label_count = ids.size(1) - 1;
  return batch;
}

TEST_CASE("text models: losses and norms of ten LoRA steps are PEFT's") {
  for (const std::string name : kTextFolders) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    const ModelPtr model = load_model(fixture(name), {});
    load_adapter(model->module(), fixture(name) / "adapter");
    model->module().train();
    NamedTensors trained;
    for (const auto& item : model->module().named_parameters()) {
      const bool is_trained = is_lora_parameter(item.key());
      item.value().set_requires_grad(is_trained);
      if (is_trained) trained.emplace_back(item.key(), item.value());
    }
    AdamW optimizer(trained, {.weight_decay = 0.01});
    const std::vector<double> rates = {0,      0.01, 0.02,   0.0175, 0.015,
                                       0.0125, 0.01, 0.0075, 0.005,  0.0025};
    std::vector<double> losses, norms;
    for (std::size_t step = 0; step < rates.size(); ++step) {
      const data::Batch batch = next_token_batch(golden["ids." + std::to_string(step % 2)]);
      const at::Tensor loss = loss_sum(*model, batch) / static_cast<double>(batch.label_count);
      loss.backward();
      losses.push_back(loss.item<double>());
      norms.push_back(clip_grad_norm(optimizer.parameters(), 1.0));
      optimizer.step(rates[step]);
      optimizer.zero_grad();
    }
    check_close(at::tensor(losses, at::kDouble), golden["train_losses"], 1e-4);
    check_close(at::tensor(norms, at::kDouble), golden["train_grad_norms"], 1e-3);
  }
}

std::string write_chats(const ScratchFolder& folder) {
  std::string rows;
  for (const std::string color : {"red", "green", "blue", "black"}) {
    rows += Json{{"messages",
                  {{{"role", "user"}, {"content", "What colour is the " + color + " shape?"}},
                   {{"role", "assistant"}, {"content", "It is " + color + "."}}}}}
                .dump() +
            "\n";
  }
  return folder.write("chats.jsonl", rows);
}

TrainConfig config_for(const ScratchFolder& folder, const std::string& model,
                       const std::string& method) {
  TrainConfig config;
  config.model_name_or_path = fixture(model).string();
  config.output_dir = folder.at(model + "_" + method);
  config.method = method;
  config.train_files = Json::array({write_chats(folder)});
  config.max_steps = 12;
  config.learning_rate = method == "full" ? 0.003 : 0.02;
  config.lora_alpha = 16;
  config.per_device_train_batch_size = 4;
  config.logging_steps = 1;
  if (method != "full") {
    config.target_modules =
        model == "phi3_tiny"
            ? Names(std::vector<std::string>{"qkv_proj", "o_proj", "gate_up_proj", "down_proj"})
            : Names(std::vector<std::string>{"q_proj", "v_proj", "up_proj"});
  }
  return config;
}

std::vector<double> losses_in(const std::filesystem::path& folder) {
  std::vector<double> losses;
  std::istringstream in(load_text(folder / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    const Json row = Json::parse(line);
    if (row.contains("loss")) losses.push_back(row["loss"].get<double>());
  }
  return losses;
}

TEST_CASE("text models: every method learns; packing and checkpointing change no loss") {
  const ScratchFolder folder;
  for (const std::string model : kTextFolders) {
    for (const std::string method : {"lora", "qlora", "dora", "full"}) {
      INFO(model << " " << method);
      const auto run = [&](const std::string& suffix, auto change) {
        TrainConfig config = config_for(folder, model, method);
        config.output_dir += suffix;
        change(config);
        Trainer(config, {.runtime = {.device = "cpu", .dtype = "float32"}}).run();
        return losses_in(config.output_dir);
      };
      const auto plain = run("", [](TrainConfig&) {});
      REQUIRE(plain.size() == 12);
      CHECK(plain.back() < plain.front() * 0.9);
      const auto packed = run("_packed", [](TrainConfig& config) {
        config.packing = true;
        config.gradient_checkpointing = true;
      });
      for (std::size_t i = 0; i < 4; ++i) CHECK(packed.at(i) == Approx(plain[i]).epsilon(1e-3));
    }
  }
}

TEST_CASE("text models: what has no meaning for them is refused by its key") {
  const ScratchFolder folder;
  const auto error_with = [&](auto change) {
    TrainConfig config = config_for(folder, "llama_tiny", "lora");
    change(config);
    try {
      Trainer(config, {.runtime = {.device = "cpu"}}).run();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(error_with([](TrainConfig& config) { config.freeze = {"vision_model"}; }) ==
        "freeze: the model has no such part: got vision_model");
  CHECK(error_with([](TrainConfig& config) { config.target_parts = {"connector"}; }) ==
        "target_parts: the model has no such part: got connector");
  CHECK_THAT(error_with([](TrainConfig& config) { config.vision_lr = 0.1; }),
             Contains("nothing is trained in the part that has a learning rate of its own"));
  const std::string picture = fixture("pictures/square.png").string();
  const std::string rows = folder.write(
      "pictures.jsonl",
      Json{{"image", picture}, {"question", "What?"}, {"answer", "a cat"}}.dump() + "\n");
  const std::string refused =
      error_with([&](TrainConfig& config) { config.train_files = Json::array({rows}); });
  CHECK_THAT(refused,
             Contains("pictures.jsonl") && Contains("the model takes no pictures and no videos"));
}

}  // namespace
}  // namespace vlm::train
