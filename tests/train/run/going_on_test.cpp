// What may change between the parts of a run, and what its checkpoints are good for beside that.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/train/run/small_run.h"
#include "train/config/effective_config.h"
#include "train/run/training_state.h"
#include "vlm/models/model_files.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

TEST_CASE("a finished run is lengthened, by steps or epochs, with the schedule of the longer one") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);  // 5 samples, 2 a step
  Trainer(config, kCpuOptions).run();
  config.max_steps = 4;
  {
    const LoggedLines log;
    Trainer(config, kCpuOptions).run();
    CHECK_THAT(log.text, Contains("the run now has 4 steps instead of 2: from here on the learning "
                                  "rate follows the schedule of 4"));
  }
  auto rows = repeatable_metrics(config.output_dir);
  REQUIRE(rows.size() == 4);
  CHECK(rows[1]["learning_rate"].get<double>() == Approx(0.005));  // of two steps, linear
  CHECK(rows[2]["learning_rate"].get<double>() == Approx(0.005));  // of four
  CHECK(rows[3]["learning_rate"].get<double>() == Approx(0.0025));
  config.max_steps = -1;
  config.num_train_epochs = 2;  // 6 steps
  Trainer(config, kCpuOptions).run();
  rows = repeatable_metrics(config.output_dir);
  CHECK(rows.size() == 6);
  CHECK(load_training_state(config.output_dir + "/checkpoint-6", effective_config(config))
            .total_steps == 6);
  config.num_train_epochs = 1;
  CHECK_THAT(
      run_error(config),
      Contains("max_steps, num_train_epochs: the run is to be shorter than what is done: got "
               "3 steps, wanted at least the 6 steps that are done (use another "
               "output_dir, or --restart to begin anew)"));
  CHECK(repeatable_metrics(config.output_dir) == rows);
  // A run that was cut may also end sooner than it was to, but not before what is done.
  config.num_train_epochs = 4;
  fs::remove_all(config.output_dir + "/checkpoint-6");
  config.max_steps = 5;
  Trainer(config, kCpuOptions).run();
  CHECK(repeatable_metrics(config.output_dir).back()["step"] == 5);
}

TEST_CASE("keys that don't change what is learned may change when a run goes on") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  Trainer(config, kCpuOptions).run();
  config.max_steps = 4;
  config.save_steps = 2;
  config.save_total_limit = 1;
  config.logging_steps = 2;
  config.max_bad_samples = 3;
  config.dataloader_num_workers = 1;
  config.evaluation.report_to = {};
  config.evaluation.report_samples = 1;
  Trainer(config, kCpuOptions).run();
  CHECK(repeatable_metrics(config.output_dir).size() == 3);
  CHECK_FALSE(fs::exists(config.output_dir + "/checkpoint-3"));
  CHECK_FALSE(fs::exists(config.output_dir + "/checkpoint-2"));

  TrainConfig evaluated = small_config(scratch);
  evaluated.output_dir = scratch.at("evaluated");
  evaluated.eval_files = evaluated.train_files;
  evaluated.eval_steps = 2;
  Trainer(evaluated, kCpuOptions).run();
  evaluated.eval_steps = 1;
  evaluated.max_steps = 3;
  Trainer(evaluated, kCpuOptions).run();
  CHECK(repeatable_metrics(evaluated.output_dir).back().contains("eval_loss"));

  config.seed = 1;
  config.max_length = 100;
  CHECK_THAT(run_error(config),
             Contains("the run to be resumed had another config: got other values of max_length, "
                      "seed"));
}

TEST_CASE("a checkpoint of an adapter run is the folder that the run would leave") {
  for (const std::string kind : {"lora", "dora", "qlora", "pissa"}) {
    INFO(kind);
    const ScratchFolder scratch;
    TrainConfig config = small_config(scratch);
    config.method = kind == "pissa" ? "lora" : kind;
    if (kind == "pissa") config.init_lora_weights = "pissa";
    config.modules_to_save = {"connector"};
    Trainer(config, kCpuOptions).run();
    const std::string last = config.output_dir + "/checkpoint-2/";
    for (const char* name : {"adapter_model.safetensors", "adapter_config.json"}) {
      CHECK(load_text(last + name) == load_text(config.output_dir + "/" + name));
    }
    CHECK(load_text(last + "adapter_model.safetensors") !=
          load_text(config.output_dir + "/checkpoint-1/adapter_model.safetensors"));
    const ModelPtr model = load_model(fixture("smolvlm_tiny"), {});
    CHECK_NOTHROW(load_adapter(model->module(), last));
  }
}

TEST_CASE("a checkpoint of a full training is a whole model, and stores its weights once") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  config.method = "full";
  config.freeze = {"vision_model"};
  Trainer(config, kCpuOptions).run();
  const std::string last = config.output_dir + "/checkpoint-2";
  CHECK_FALSE(fs::exists(last + "/trained.safetensors"));
  for (const auto& entry : fs::directory_iterator(fixture("smolvlm_tiny"))) {
    const fs::path name = entry.path().filename();
    if (is_model_file(name)) CHECK(fs::exists(last / name));
  }
  CHECK(load_text(last + "/model.safetensors") ==
        load_text(config.output_dir + "/model.safetensors"));
  const ModelPtr model = load_model(last, {});
  CHECK_NOTHROW(load_processor(last));
  const Golden trained(config.output_dir + "/model.safetensors");
  for (const auto& [name, weight] : model->weights()) CHECK(weight.equal(trained[name]));

  // And what the run goes on from: one damaged byte is found.
  std::fstream file(last + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file.put('\x55');
  file.close();
  const LoggedLines log;
  CHECK(find_checkpoint(config.output_dir) == fs::path(config.output_dir) / "checkpoint-1");
  CHECK_THAT(log.text, Contains("model.safetensors isn't what was written"));
}

TEST_CASE("a damaged adapter in a checkpoint is found, too") {
  const ScratchFolder scratch;
  const TrainConfig config = small_config(scratch);
  Trainer(config, kCpuOptions).run();
  fs::resize_file(config.output_dir + "/checkpoint-2/adapter_model.safetensors", 100);
  const LoggedLines log;
  CHECK(find_checkpoint(config.output_dir) == fs::path(config.output_dir) / "checkpoint-1");
  CHECK_THAT(log.text, Contains("checkpoint-2 is damaged and passed over"));
}

TEST_CASE("with a starting adapter its settings are told, not the config's") {
  const ScratchFolder scratch;
  TrainConfig config = small_config(scratch);
  config.adapter = fixture("smolvlm_tiny/train/adapter_start").string();
  config.r = 77;
  config.lora_alpha = 7;
  config.use_rslora = true;
  config.modules_to_save = {"nothing"};
  const LoraConfig lora = load_adapter_config(*config.adapter);
  CHECK(lora.r != 77);
  Trainer(config, kCpuOptions).run();
  const Json told = load_json(config.output_dir + "/train_config.json");
  CHECK(told["r"] == lora.r);
  CHECK(told["lora_alpha"] == lora.lora_alpha);
  CHECK(told["use_rslora"] == lora.use_rslora);
  CHECK(told["modules_to_save"] == Json::array());
  CHECK(told["target_modules"].dump() == lora.to_json("")["target_modules"].dump());
  CHECK_FALSE(told.contains("target_parts"));
  CHECK_FALSE(told.contains("init_lora_weights"));
  const std::string card = load_text(config.output_dir + "/README.md");
  CHECK_THAT(card, Contains("| `r` | `" + std::to_string(lora.r) + "` |") && !Contains("77"));
  CHECK_THAT(load_text(config.output_dir + "/report.html"), !Contains(">77<"));
  // It is a config file again, of the same run.
  const TrainConfig again = load_train_config(config.output_dir + "/train_config.json", {});
  CHECK(effective_config(again).dump() ==
        load_ordered_json(config.output_dir + "/train_config.json").dump());
}

}  // namespace
}  // namespace vlm::train
