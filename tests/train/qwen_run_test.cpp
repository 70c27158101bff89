// Fine-tuning of Qwen-VL on pictures of several sizes: every method and part; packing, shared
// pictures, checkpointing, kept features and a cut change no loss.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "train/trainer.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/text_file.h"
#include "vlm/io/safetensors.h"

namespace vlm::train {
namespace {

const char* const kQwenFolders[] = {"qwen2_vl_tiny", "qwen2_5_vl_tiny", "qwen3_vl_tiny"};

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

TrainConfig qwen_config(const ScratchFolder& folder, const std::string& model,
                        const std::string& method) {
  TrainConfig config;
  config.model_name_or_path = fixture(model).string();
  config.output_dir = folder.at(model + "_" + method);
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

TEST_CASE("Qwen-VL: every method learns; how the pictures come in changes no loss") {
  const ScratchFolder folder;
  for (const std::string model : kQwenFolders) {
    for (const std::string method : {"lora", "qlora", "dora", "full"}) {
      INFO(model << " " << method);
      const TrainConfig plain = qwen_config(folder, model, method);
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

TEST_CASE("Qwen-VL: a run that was cut goes on as if it hadn't been") {
  const ScratchFolder folder;
  for (const std::string model : kQwenFolders) {
    INFO(model);
    TrainConfig whole = qwen_config(folder, model, "lora");
    whole.per_device_train_batch_size = 2;
    whole.save_steps = 4;
    TrainConfig cut = whole;
    cut.output_dir += "_cut";
    const auto losses = run_losses(whole);
    run_losses(cut);
    for (const char* behind : {"checkpoint-8", "adapter_model.safetensors"}) {
      std::filesystem::remove_all(std::filesystem::path(cut.output_dir) / behind);
    }
    const auto again = run_losses(cut);
    REQUIRE(again.size() >= 8);
    for (std::size_t i = 0; i < 4; ++i) CHECK(again[again.size() - 1 - i] == losses[7 - i]);
  }
}

TEST_CASE("Qwen-VL: adapters reach the parts that are asked for") {
  const ScratchFolder folder;
  TrainConfig config = qwen_config(folder, "qwen2_5_vl_tiny", "lora");
  config.max_steps = 1;
  const auto names = [&](const std::vector<std::string>& parts,
                         const std::vector<std::string>& modules) {
    config.output_dir += "_";
    config.target_parts = parts;
    config.target_modules = modules;
    run_losses(config);
    const auto path = std::filesystem::path(config.output_dir) / "adapter_model.safetensors";
    std::int64_t of_text = 0, of_eyes = 0;
    const SafetensorsFile file(path);
    for (const auto& [name, entry] : file.entries()) {
      (name.find("model.visual.") != std::string::npos ? of_eyes : of_text) += 1;
    }
    return std::pair(of_text, of_eyes);
  };
  using Counts = std::pair<std::int64_t, std::int64_t>;
  // Two layers of the decoder, three blocks of the encoder, A and B each.
  CHECK(names({}, {"gate_proj"}) == Counts{4, 0});
  CHECK(names({"vision_model"}, {"gate_proj"}) == Counts{0, 6});
  CHECK(names({"text_model", "vision_model"}, {"gate_proj", "qkv"}) == Counts{4, 12});
  CHECK(names({"connector"}, {"0", "2"}) == Counts{0, 4});
}

}  // namespace
}  // namespace vlm::train
