#include "train/train_config.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"
#include "vlm/nn/lora.h"

namespace vlm::train {
namespace {

// Loads a config of the smallest valid keys with `more` added.
TrainConfig load(const std::string& more, const std::vector<std::string>& overrides = {}) {
  const ScratchFolder folder;
  const auto path = folder.path() / "c.json";
  save_text(path, R"({"model_name_or_path": "m", "output_dir": "o", "train_files": ["d.jsonl"])" +
                      more + "}");
  return load_train_config(path, overrides);
}

TEST_CASE("every config of the project loads") {
  std::int64_t loaded = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(VLM_SOURCE_DIR) + "/configs")) {
    INFO(entry.path());
    CHECK_NOTHROW(load_train_config(entry.path(), {}));
    ++loaded;
  }
  CHECK(loaded >= 2);
}

TEST_CASE("keys are strict, and overrides win") {
  CHECK(load(R"(, "r": 4)", {"r=16", "augmentation.shift=0.1"}).r == 16);
  CHECK_THROWS_WITH(load(R"(, "learning_rat": 1)"),
                    Contains("c.json: unknown key 'learning_rat' (did you mean 'learning_rate'?)"));
  CHECK_THROWS_WITH(load(R"(, "augmentation": {"shift": 2})"),
                    Contains("augmentation.shift: value out of range: got 2, wanted 0 to below 1"));
  CHECK_THROWS_WITH(load(R"(, "method": "qlora")"),
                    Contains("method: unknown value: got 'qlora', wanted lora, full"));
}

TEST_CASE("values that can't work are refused by key") {
  CHECK_THROWS_WITH(
      load(R"(, "per_device_train_batch_size": 0)"),
      Contains(
          "c.json: per_device_train_batch_size: value out of range: got 0, wanted at least 1"));
  CHECK_THROWS_WITH(load(R"(, "adam_beta2": 1)"), Contains("adam_beta2: value out of range"));
  CHECK_THROWS_WITH(load(R"(, "num_train_epochs": 0)"),
                    Contains("num_train_epochs: value out of range"));
  CHECK_THROWS_WITH(load(R"(, "eval_steps": 5)"),
                    Contains("eval_steps: eval_steps without eval_files"));
  CHECK_THROWS_WITH(load(R"(, "freeze": ["tower"])"),
                    Contains("freeze: unknown part: got 'tower', wanted vision_model"));
  CHECK_THROWS_WITH(load(R"(, "output_dir": "")"), Contains("key given twice"));
  CHECK_THROWS_WITH(load("", {"output_dir="}), Contains("output_dir: required key is missing"));
  CHECK_THROWS_WITH(load(R"(, "adapter": "a", "method": "full")"),
                    Contains("adapter: adapter needs method lora"));
  CHECK_THROWS_WITH(load(R"(, "init_weights": "random")"),
                    Contains("random weights need method full"));
  CHECK_THROWS_WITH(load(R"(, "stages": [{"train_files": ["a"], "steps": 1}])"),
                    Contains("both train_files and stages are given"));
  CHECK_THROWS_WITH(load("", {"train_files=[]"}), Contains("train_files: no training data"));
  CHECK_THROWS_WITH(load("", {"train_files=[]", R"(stages=[{"train_files": ["a"]}])"}),
                    Contains("stages[0]: a stage needs train_files and steps"));
}

TEST_CASE("a list of modules is looked up in the text model only, unless asked otherwise") {
  const std::string text = "model.text_model.layers.3.self_attn.q_proj";
  const std::string vision = "model.vision_model.encoder.layers.3.self_attn.q_proj";
  CHECK(matches_module(load("").lora().target_modules, text));
  CHECK_FALSE(matches_module(load("").lora().target_modules, vision));
  const auto both = load(R"(, "target_parts": ["text_model", "vision_model"])").lora();
  CHECK(matches_module(both.target_modules, vision));
  CHECK_FALSE(matches_module(both.target_modules, "model.text_model.layers.3.self_attn.xq_proj"));
  const auto pattern = load(R"(, "target_modules": ".*vision.*q_proj")").lora();
  CHECK(matches_module(pattern.target_modules, vision));
  CHECK_FALSE(matches_module(pattern.target_modules, text));
}

}  // namespace
}  // namespace vlm::train
