// Fine-tuning of the families whose parts have other names than SmolVLM's: where adapters go by
// default and by part, every method, packed rows and kept pictures.
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "train/model/trained_model.h"
#include "train/trainer.h"
#include "vlm/core/json.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

const char* const kPictureFolders[] = {"qwen2_vl_tiny", "qwen2_5_vl_tiny", "qwen3_vl_tiny",
                                       "internvl_tiny", "internvl3_5_tiny"};

TrainConfig picture_config(const ScratchFolder& folder, const std::string& model) {
  std::string rows;
  for (const char* picture : {"square.png", "wide.png"}) {
    rows += Json{{"question", "What is it?"},
                 {"answer", picture},
                 {"image", fixture("pictures/" + std::string(picture)).string()}}
                .dump() +
            "\n";
  }
  TrainConfig config;
  config.model_name_or_path = fixture(model).string();
  config.train_files = Json::array({folder.write("rows.jsonl", rows)});
  config.max_steps = 8;
  config.learning_rate = 0.01;
  config.per_device_train_batch_size = 2;
  config.logging_steps = 1;
  return config;
}

// The modules that adapters are attached to, without their numbers.
std::set<std::string> adapted_modules(const TrainConfig& config) {
  const TrainedModel trained = load_trained_model(config, {.device = "cpu"}, at::kCPU);
  std::set<std::string> found;
  for (const auto& item : trained.model->module().named_parameters()) {
    if (!is_lora_parameter(item.key())) continue;
    std::string name = item.key().substr(0, item.key().find(".lora_"));
    for (char& c : name) {
      if (c >= '0' && c <= '9') c = '#';
    }
    found.insert(name);
  }
  return found;
}

TEST_CASE("adapters go into the text model by default, and into the parts that are asked for") {
  const ScratchFolder folder;
  for (const std::string model : kPictureFolders) {
    INFO(model);
    TrainConfig config = picture_config(folder, model);
    const std::set<std::string> text = adapted_modules(config);
    CHECK(text.count("model.language_model.layers.#.self_attn.q_proj") == 1);
    for (const std::string& name : text) {
      INFO(name);
      CHECK(name.starts_with("model.language_model."));
    }
  }
  using Modules = std::set<std::string>;
  TrainConfig config = picture_config(folder, "internvl_tiny");
  config.target_modules = std::vector<std::string>{"q_proj", "fc1"};
  config.target_parts = {"vision_model"};
  CHECK(adapted_modules(config) == Modules{"model.vision_tower.encoder.layer.#.attention.q_proj",
                                           "model.vision_tower.encoder.layer.#.mlp.fc#"});
  config.target_modules = std::vector<std::string>{"linear_1"};
  config.target_parts = {"connector"};
  CHECK(adapted_modules(config) == Modules{"model.multi_modal_projector.linear_#"});
  config = picture_config(folder, "qwen2_vl_tiny");
  config.target_modules = std::vector<std::string>{"qkv"};
  config.target_parts = {"vision_model"};
  CHECK(adapted_modules(config) == Modules{"model.visual.blocks.#.attn.qkv"});
}

std::vector<double> picture_losses(TrainConfig config, const std::string& folder) {
  config.output_dir = folder;
  Trainer(config, {.runtime = {.device = "cpu", .dtype = "float32"}}).run();
  std::vector<double> losses;
  std::istringstream in(load_text(std::filesystem::path(folder) / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    const Json row = parse_json(line, "metrics");
    if (row.contains("loss")) losses.push_back(row["loss"].get<double>());
  }
  return losses;
}

TEST_CASE("InternVL learns by every method; packing and checkpointing change no loss") {
  const ScratchFolder folder;
  for (const std::string model : {"internvl_tiny", "internvl3_5_tiny"}) {
    for (const std::string method : {"lora", "qlora", "dora", "full"}) {
      INFO(model << " " << method);
      TrainConfig config = picture_config(folder, model);
      config.method = method;
      const std::string output = folder.at(model + method);
      const std::vector<double> plain = picture_losses(config, output);
      REQUIRE(plain.size() == 8);
      CHECK(plain.back() < plain.front());
      config.packing = true;
      config.gradient_checkpointing = true;
      const std::vector<double> packed = picture_losses(config, output + "packed");
      for (std::size_t i = 0; i < 4; ++i) CHECK(packed.at(i) == Approx(plain[i]).epsilon(1e-3));
    }
  }
}

}  // namespace
}  // namespace vlm::train
