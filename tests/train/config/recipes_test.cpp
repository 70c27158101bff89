// The configs that `vlm init-config` writes: each loads, also with every key that is commented out,
// and hits the layers of the published model that it names.
#include "train/config/recipes.h"

#include <torch/nn/module.h>

#include <ATen/CPUGeneratorImpl.h>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "train/config/train_config.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

const std::string kSmall = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct";
const std::string kMiddle = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct";
const std::string kLarge = "HuggingFaceTB/SmolVLM2-2.2B-Instruct";

TrainConfig load_text_as_config(const std::string& text,
                                const std::vector<std::string>& overrides = {}) {
  const ScratchFolder folder;
  return load_train_config(folder.write("c.yaml", text), overrides);
}

// The text with the lines of each kind "#key: value" turned into keys.
std::string with_all_keys(const std::string& text) {
  std::istringstream in(text);
  std::string turned;
  for (std::string line; std::getline(in, line);) {
    const bool is_key = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    turned += line.substr(is_key ? 1 : 0) + "\n";
  }
  return turned;
}

TEST_CASE("the program carries the recipes of the tree, byte by byte") {
  std::set<std::string> names;
  for (const Recipe& recipe : recipes()) {
    INFO(recipe.name);
    names.insert(recipe.name);
    CHECK(recipe.text ==
          load_text(std::string(VLM_SOURCE_DIR) + "/configs/" + recipe.name + ".yaml"));
    CHECK(recipe.description().size() > 20);
    CHECK(recipe.description().find('#') == std::string::npos);
  }
  CHECK(names == std::set<std::string>{"smolvlm2_2.2b_lora", "smolvlm2_2.2b_qlora_16gb",
                                       "smolvlm2_256m_lora", "smolvlm2_500m_lora",
                                       "smolvlm2_captioning", "smolvlm2_classification",
                                       "smolvlm2_document_vqa", "smolvlm2_video_lora"});
}

TEST_CASE("every recipe loads, and every key that it leaves commented out is one") {
  for (const Recipe& recipe : recipes()) {
    INFO(recipe.name);
    const TrainConfig config = load_text_as_config(recipe.text);
    CHECK(config.output_dir.starts_with("out/"));
    const std::string turned = with_all_keys(recipe.text);
    CHECK(turned.size() < recipe.text.size());
    CHECK_NOTHROW(load_text_as_config(turned));
  }
}

TEST_CASE("a recipe is written once, as YAML, and unknown names are answered with the known") {
  const ScratchFolder folder;
  const Recipe& recipe = find_recipe("smolvlm2_256m_lora");
  save_recipe(recipe, folder.at("my.yaml"));
  CHECK(load_text(folder.at("my.yaml")) == recipe.text);
  CHECK_THROWS_WITH(
      save_recipe(recipe, folder.at("my.yaml")),
      folder.at("my.yaml") + ": the file is there already (choose another name for the config)");
  CHECK_THROWS_WITH(save_recipe(recipe, folder.at("my.json")),
                    folder.at("my.json") +
                        ": recipes are YAML, which configs are read as by their name: wanted a "
                        "name that ends with .yaml");
  CHECK_THROWS_WITH(save_recipe(recipe, folder.at("none/my.yaml")),
                    Contains("No such file or directory"));
  CHECK_THROWS_WITH(
      find_recipe("smolvlm2_256_lora"),
      Contains("no such recipe: got 'smolvlm2_256_lora', wanted smolvlm2_2.2b_lora,") &&
          Contains("(did you mean 'smolvlm2_256m_lora'?)"));
  CHECK(folder.names() == std::vector<std::string>{"my.yaml"});
}

// Sizes of the published checkpoints.
Json published_config(const std::string& model) {
  const bool is_large = model == kLarge;
  Json text = {{"model_type", "llama"}, {"vocab_size", 49280}, {"head_dim", 64}};
  Json vision = {{"image_size", is_large ? 384 : 512}, {"patch_size", is_large ? 14 : 16}};
  if (is_large) {
    text.update({{"hidden_size", 2048},
                 {"intermediate_size", 8192},
                 {"num_hidden_layers", 24},
                 {"num_attention_heads", 32},
                 {"num_key_value_heads", 32}});
    vision.update({{"hidden_size", 1152},
                   {"intermediate_size", 4304},
                   {"num_hidden_layers", 27},
                   {"num_attention_heads", 16}});
  } else {
    const bool is_small = model == kSmall;
    text.update({{"hidden_size", is_small ? 576 : 960},
                 {"intermediate_size", is_small ? 1536 : 2560},
                 {"num_hidden_layers", is_small ? 30 : 32},
                 {"num_attention_heads", is_small ? 9 : 15},
                 {"num_key_value_heads", is_small ? 3 : 5}});
    vision.update({{"hidden_size", 768},
                   {"intermediate_size", 3072},
                   {"num_hidden_layers", 12},
                   {"num_attention_heads", 12}});
  }
  return {{"model_type", "smolvlm"},
          {"image_token_id", 49190},
          {"scale_factor", is_large ? 3 : 4},
          {"text_config", text},
          {"vision_config", vision}};
}

// Values of the adapters that the recipe puts on a model of the published shape.
std::int64_t count_trained(const TrainConfig& config) {
  const ScratchFolder folder;
  folder.write("config.json", published_config(config.model_name_or_path).dump());
  const ModelPtr model = make_model(folder.path());  // its memory is never touched
  at::Generator generator = at::detail::createCPUGenerator(1);
  attach_lora(model->module(), config.lora(), generator);
  std::int64_t count = 0;
  for (const auto& item : model->module().named_parameters()) {
    if (item.key().find("lora_") != std::string::npos) count += item.value().numel();
  }
  return count;
}

TEST_CASE("recipes adapt the layers of the published models that they name") {
  // r × (inputs + outputs) over q, k, v, o, gate, up, down of every layer.
  const std::int64_t small = 16 * 30 * (2 * 1152 + 2 * 768 + 3 * 2112);
  const std::int64_t middle = 16 * 32 * (2 * 1920 + 2 * 1280 + 3 * 3520);
  const std::int64_t large = 16 * 24 * (4 * 4096 + 3 * 10240);
  // Beside those of the text model, q, k, v, out, fc1, fc2 of 12 layers, and the projection.
  const std::int64_t seeing = 16 * (12 * (4 * 1536 + 2 * 3840) + 12288 + 576);
  const std::map<std::string, std::pair<std::string, std::int64_t>> wanted = {
      {"smolvlm2_256m_lora", {kSmall, small}},
      {"smolvlm2_500m_lora", {kMiddle, middle}},
      {"smolvlm2_2.2b_lora", {kLarge, large}},
      {"smolvlm2_2.2b_qlora_16gb", {kLarge, large}},
      {"smolvlm2_video_lora", {kMiddle, middle}},
      {"smolvlm2_captioning", {kMiddle, middle}},
      {"smolvlm2_document_vqa", {kMiddle, middle}},
      {"smolvlm2_classification", {kSmall, small + seeing}}};
  for (const Recipe& recipe : recipes()) {
    INFO(recipe.name);
    const TrainConfig config = load_text_as_config(recipe.text);
    const auto& [model, count] = wanted.at(recipe.name);
    CHECK(config.model_name_or_path == model);
    CHECK(count_trained(config) == count);
  }
}

}  // namespace
}  // namespace vlm::train
