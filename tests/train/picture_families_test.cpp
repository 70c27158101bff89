// Fine-tuning of the families beside SmolVLM, on pictures of several sizes: where adapters go by
// default and by part; every method; packing, shared pictures, checkpointing, kept features and a
// cut change no loss.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "train/model/trained_model.h"
#include "train/trainer.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/core/text_file.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

// A family's folder, its text model and what one of that's projections is called.
struct PictureModel {
  const char* folder;
  const char* text = "model.language_model.";
  const char* query = "self_attn.q_proj";
};
const PictureModel kPictureModels[] = {
    {"qwen2_vl_tiny"},
    {"qwen2_5_vl_tiny"},
    {"qwen3_vl_tiny"},
    {"internvl_tiny"},
    {"internvl3_5_tiny"},
    {"internvl_chat_tiny", "language_model.model."},
    {"internvl_internlm2_tiny", "language_model.model.", "attention.wqkv"}};

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
  for (const PictureModel& model : kPictureModels) {
    INFO(model.folder);
    TrainConfig config = picture_config(folder, model.folder);
    const std::set<std::string> text = adapted_modules(config);
    CHECK(text.count(concat(model.text, "layers.#.", model.query)) == 1);
    for (const std::string& name : text) {
      INFO(name);
      CHECK(name.starts_with(model.text));
    }
  }
  using Modules = std::set<std::string>;
  // The default list stands for projections that are called otherwise.
  CHECK(adapted_modules(picture_config(folder, "internvl_internlm2_tiny")) ==
        Modules{"language_model.model.layers.#.attention.wqkv",
                "language_model.model.layers.#.attention.wo",
                "language_model.model.layers.#.feed_forward.w#"});
  CHECK(adapted_modules(picture_config(folder, "phi3_tiny")) ==
        Modules{"model.layers.#.self_attn.qkv_proj", "model.layers.#.self_attn.o_proj",
                "model.layers.#.mlp.gate_up_proj", "model.layers.#.mlp.down_proj"});
  TrainConfig config = picture_config(folder, "internvl_tiny");
  config.target_modules = std::vector<std::string>{"q_proj", "fc1"};
  config.target_parts = {"vision_model"};
  CHECK(adapted_modules(config) == Modules{"model.vision_tower.encoder.layer.#.attention.q_proj",
                                           "model.vision_tower.encoder.layer.#.mlp.fc#"});
  config.target_modules = std::vector<std::string>{"linear_1"};
  config.target_parts = {"connector"};
  CHECK(adapted_modules(config) == Modules{"model.multi_modal_projector.linear_#"});
  config = picture_config(folder, "internvl_internlm2_tiny");
  config.target_modules = std::vector<std::string>{"qkv", "proj"};
  config.target_parts = {"vision_model"};
  CHECK(adapted_modules(config) == Modules{"vision_model.encoder.layers.#.attn.qkv",
                                           "vision_model.encoder.layers.#.attn.proj"});
  config = picture_config(folder, "qwen2_vl_tiny");
  config.target_modules = std::vector<std::string>{"qkv"};
  config.target_parts = {"vision_model"};
  CHECK(adapted_modules(config) == Modules{"model.visual.blocks.#.attn.qkv"});
}

// One picture that is asked about twice, two of other sizes in one question, and a text.
std::string write_questions_of_sizes(const ScratchFolder& folder) {
  std::string rows;
  const auto add = [&](const std::vector<std::string>& pictures, const std::string& question,
                       const std::string& answer) {
    Json content = Json::array(), images = Json::array();
    for (const std::string& picture : pictures) {
      content.push_back({{"type", "image"}});
      images.push_back(fixture("pictures/" + picture + ".png").string());
    }
    content.push_back({{"type", "text"}, {"text", question}});
    const Json asked = {{"role", "user"}, {"content", content}};
    const Json said = {{"role", "assistant"}, {"content", answer}};
    rows += Json{{"messages", Json::array({asked, said})}, {"images", images}}.dump() + "\n";
  };
  add({"wide"}, "What colour is it?", "It is red.");
  add({"wide"}, "How many dogs?", "3 dogs");
  add({"square", "tall"}, "Are they the same?", "no");
  add({}, "And now?", "yes");
  return folder.write("rows.jsonl", rows);
}

TrainConfig run_config(const ScratchFolder& folder, const PictureModel& model,
                       const std::string& method) {
  TrainConfig config;
  config.model_name_or_path = fixture(model.folder).string();
  config.output_dir = folder.at(concat(model.folder, "_", method));
  config.method = method;
  config.train_files = Json::array({write_questions_of_sizes(folder)});
  config.max_steps = 8;
  config.learning_rate = method == "full" ? 0.003 : 0.02;
  config.lora_alpha = 16;
  config.per_device_train_batch_size = 4;
  config.logging_steps = 1;
  return config;
}

std::vector<double> run_losses(const TrainConfig& config) {
  Trainer(config, {.runtime = {.device = "cpu", .dtype = "float32"}}).run();
  std::vector<double> losses;
  std::istringstream in(load_text(std::filesystem::path(config.output_dir) / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    const Json row = Json::parse(line);
    if (row.contains("loss")) losses.push_back(row["loss"].get<double>());
  }
  return losses;
}

TEST_CASE("families: every method learns; how the pictures come in changes no loss") {
  const ScratchFolder folder;
  for (const PictureModel& model : kPictureModels) {
    for (const std::string method : {"lora", "qlora", "dora", "full"}) {
      INFO(model.folder << " " << method);
      const TrainConfig plain = run_config(folder, model, method);
      const auto losses = run_losses(plain);
      REQUIRE(losses.size() == 8);
      CHECK(losses.back() < losses.front() * 0.9);
      TrainConfig packed = plain, kept = plain;
      packed.output_dir += "_packed";
      packed.packing = packed.share_pictures = packed.gradient_checkpointing = true;
      kept.output_dir += "_kept";
      kept.feature_cache = folder.at("features");
      for (const TrainConfig& changed : {packed, kept}) {
        INFO(changed.output_dir);
        const auto found = run_losses(changed);
        for (std::size_t i = 0; i < 4; ++i) CHECK(found.at(i) == Approx(losses[i]).epsilon(1e-3));
      }
    }
  }
}

TEST_CASE("families: a run that was cut goes on as if it hadn't been") {
  const ScratchFolder folder;
  const std::string method = GENERATE("lora", "full");
  for (const PictureModel& model : kPictureModels) {
    INFO(model.folder << " " << method);
    TrainConfig whole = run_config(folder, model, method);
    whole.per_device_train_batch_size = 2;
    whole.save_steps = 4;
    TrainConfig cut = whole;
    cut.output_dir += "_cut";
    const auto losses = run_losses(whole);
    run_losses(cut);
    for (const char* behind : {"checkpoint-8", "adapter_model.safetensors", "model.safetensors"}) {
      std::filesystem::remove_all(std::filesystem::path(cut.output_dir) / behind);
    }
    const auto again = run_losses(cut);
    REQUIRE(again.size() >= 8);
    for (std::size_t i = 0; i < 4; ++i) CHECK(again[again.size() - 1 - i] == losses[7 - i]);
  }
}

}  // namespace
}  // namespace vlm::train
