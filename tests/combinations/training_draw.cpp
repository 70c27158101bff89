#include "tests/combinations/training_draw.h"

#include <signal.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/combinations/training_data.h"
#include "tests/support/catch.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

const Names kParts = {"vision_model", "connector", "text_model", "lm_head"};

void draw_targets(Dice& dice, Json& config) {
  const Names text = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  switch (dice.between(0, 6)) {
    case 0:
      config["target_modules"] = "all-linear";
      break;
    case 1:
      config["target_modules"] =
          dice.pick({".*(q|v)_proj", R"(.*text_model\.layers\.1\..*)", ".*fc[12]", ".*lm_head",
                     R"((?!.*vision).*(k_proj|up_proj))", R"(.*(?<!connector)\.v_proj)",
                     ".*(embed_tokens|q_proj)"});
      break;
    case 2:
      config["target_modules"] = dice.pick(std::vector<Names>{
          {"q_proj", "fc1"}, {"out_proj", "fc2", "k_proj"}, {"proj"}, {"v_proj", "lm_head"}});
      config["target_parts"] = {"vision_model", "text_model", "connector"};
      break;
    case 3:
      config["target_modules"] = dice.pick(std::vector<Names>{{"embed_tokens"},
                                                              {"lm_head"},
                                                              {"embed_tokens", "lm_head", "q_proj"},
                                                              {"k_proj", "embed_tokens"}});
      break;
    case 4:
      break;  // the default
    default: {
      Names names = dice.some(text, 0.3);
      if (std::find(names.begin(), names.end(), "down_proj") == names.end())
        names.push_back("down_proj");
      config["target_modules"] = names;
    }
  }
  if (dice.chance(0.1))
    config["exclude_modules"] = Names{dice.pick({"down_proj", "q_proj", "lm_head"})};
  if (dice.chance(0.1)) {
    config["layers_to_transform"] = {dice.between(0, 1)};
    if (dice.chance(0.5)) config["layers_pattern"] = "layers";
  }
}

void draw_adapter(Dice& dice, Json& config) {
  config["r"] = dice.pick(std::vector<int>{1, 2, 3, 8});
  config["lora_alpha"] = dice.pick(std::vector<double>{1, 4, 16});
  if (dice.chance(0.4)) config["lora_dropout"] = 0.2;
  if (dice.chance(0.2)) config["use_rslora"] = true;
  draw_targets(dice, config);
  if (dice.chance(0.2)) config["init_lora_weights"] = "gaussian";
  if (dice.chance(0.2)) config["init_lora_weights"] = "pissa";
  if (dice.chance(0.15)) config["rank_pattern"] = {{R"(layers\.0\..*)", 2}, {"q_proj", 5}};
  if (dice.chance(0.15)) config["alpha_pattern"] = {{"down_proj", 3}};
  if (dice.chance(0.3)) config["bias"] = dice.pick({"lora_only", "all"});
  if (dice.chance(0.25)) {
    config["modules_to_save"] = dice.pick(std::vector<Names>{{"connector"},
                                                             {"lm_head"},
                                                             {"text_model.norm"},
                                                             {"embed_tokens"},
                                                             {"lm_head", "connector"}});
  }
  if (dice.chance(0.15)) config["loraplus_lr_ratio"] = 4;
  if (dice.chance(0.12)) {
    config["trainable_token_indices"] =
        dice.pick(std::vector<Json>{Json{3, 77}, Json{{"embed_tokens", {5}}},
                                    Json{{"embed_tokens", {5}}, {"lm_head", {6, 7}}}});
  }
  if (dice.chance(0.1)) config["ensure_weight_tying"] = true;
}

// An adapter that others made, to go on from.
void draw_start(Dice& dice, Json& config) {
  const bool is_tiny = config["model_name_or_path"].get<std::string>().ends_with("/smolvlm_tiny");
  if (!is_tiny || !dice.chance(0.15)) return;
  if (config["method"] == "dora") config["adapter"] = fixture("smolvlm_tiny/methods/dora").string();
  if (config["method"] != "lora" && config["method"] != "qlora") return;
  config["adapter"] =
      fixture("smolvlm_tiny/adapters/" + dice.pick({"plain", "rslora", "patterns", "list"}))
          .string();
}

void draw_method(Dice& dice, Json& config) {
  config["method"] = dice.pick({"lora", "lora", "lora", "dora", "qlora", "full", "full"});
  if (config["method"] == "full") {
    if (dice.chance(0.2)) config["init_weights"] = "random";
  } else {
    draw_adapter(dice, config);
    draw_start(dice, config);
  }
  if (dice.chance(0.3)) config["freeze"] = dice.some(kParts, 0.35);
  for (const char* rate : {"vision_lr", "connector_lr", "text_lr"}) {
    if (dice.chance(0.08)) config[rate] = 2e-3;
  }
}

void draw_batches(Dice& dice, Json& config) {
  config["per_device_train_batch_size"] = dice.between(1, 3);
  config["gradient_accumulation_steps"] = dice.pick(std::vector<int>{1, 1, 2, 3});
  config["dataloader_num_workers"] = dice.between(1, 3);
  if (dice.chance(0.4)) {
    config["packing"] = true;
    config["max_tokens_per_batch"] = dice.pick(std::vector<int>{128, 256, 2048});
    if (dice.chance(0.3)) config["max_tiles_per_batch"] = 10;
    if (dice.chance(0.5)) config["share_pictures"] = true;
  } else if (dice.chance(0.2)) {
    config["group_by_length"] = true;
  }
  if (dice.chance(0.3)) config["gradient_checkpointing"] = true;
  if (dice.chance(0.1)) config["shuffle"] = false;
  if (dice.chance(0.1)) config["memory_gb"] = 100;
  if (dice.chance(0.25)) {
    config["augmentation"] = {{"shift", 0.1}};
    if (dice.chance(0.5)) config["augmentation"]["hue"] = 0.2;
    if (dice.chance(0.5)) config["augmentation"]["horizontal_flip"] = true;
  }
}

void draw_optimizer(Dice& dice, Json& config) {
  config["optim"] = dice.pick({"adamw", "adamw", "adamw_8bit", "sgd"});
  if (config["optim"] == "sgd" && dice.chance(0.5)) config["sgd_momentum"] = 0.9;
  config["learning_rate"] = dice.pick(std::vector<double>{1e-3, 5e-3});
  if (dice.chance(0.3)) config["weight_decay"] = 0.1;
  config["max_grad_norm"] = dice.pick(std::vector<double>{0, 1, 1});
  const std::string schedule = dice.pick({"linear", "cosine", "cosine_with_restarts", "constant",
                                          "constant_with_warmup", "warmup_stable_decay"});
  config["lr_scheduler_type"] = schedule;
  if (schedule == "warmup_stable_decay") config["lr_scheduler_kwargs"] = {{"num_decay_steps", 2}};
  if (schedule == "cosine_with_restarts") config["lr_scheduler_kwargs"] = {{"num_cycles", 2}};
  if (dice.chance(0.3)) config["warmup_steps"] = 1;
  if (dice.chance(0.2)) config["warmup_ratio"] = 0.2;
}

void draw_evaluation(Dice& dice, const fs::path& folder, const DrawnMedia& media, Json& config) {
  config["eval_files"] = draw_data_files(dice, folder / "eval", {.clips = media.clips, .rows = 4});
  config["eval_steps"] = dice.between(0, 3);
  config["per_device_eval_batch_size"] = dice.between(1, 4);
  Names metrics;
  if (dice.chance(0.7)) {
    metrics = dice.some({"exact_match", "vqa_accuracy", "anls", "rouge_l", "cider", "cer"});
    config["eval_metrics"] = metrics;
    config["eval_max_new_tokens"] = dice.between(1, 5);
    if (dice.chance(0.3)) config["eval_max_samples"] = 2;
  }
  if (dice.chance(0.4)) {
    metrics.push_back("loss");
    config["metric_for_best_model"] = dice.pick(metrics);
    if (dice.chance(0.5)) config["load_best_model_at_end"] = true;
    if (dice.chance(0.5)) config["early_stopping_patience"] = dice.between(1, 2);
  }
}

void draw_run(Dice& dice, Json& config) {
  config["seed"] = dice.between(0, 1000);
  config["num_train_epochs"] = dice.chance(0.15) ? 2.5 : 3.0;
  if (dice.chance(0.1)) config["max_steps"] = 7;
  config["logging_steps"] = dice.pick(std::vector<int>{1, 1, 2, 3});
  config["save_steps"] = dice.between(0, 3);
  config["save_total_limit"] = dice.between(1, 3);
  config["report_to"] = dice.some({"tensorboard", "html"}, 0.6);
}

void draw_samples(Dice& dice, const fs::path& folder, DrawnMedia& media, Json& config) {
  media.clips = config["model_name_or_path"].get<std::string>().ends_with("idefics3_tiny")
                    ? false
                    : dice.chance(0.25);
  media.rows = dice.between(3, 7);
  config["train_files"] = draw_data_files(dice, folder / "train", media);
  if (media.clips) {
    config["video_max_frames"] = dice.between(1, 3);
    if (dice.chance(0.4)) config["video_strategy"] = dice.pick({"uniform", "scene"});
    if (dice.chance(0.2)) config["video_frame_size"] = 32;
    if (dice.chance(0.2)) config["video_drop_duplicates"] = true;
  }
  config["train_on"] = dice.pick({"assistant", "assistant", "last_assistant", "all"});
  if (dice.chance(0.2)) {
    const bool skips = dice.chance(0.5);  // a picture can't be cut off
    config["max_length"] = skips ? dice.pick(std::vector<int>{80, 200}) : 250;
    config["length_policy"] = skips ? "skip" : "truncate";
  }
  if (dice.chance(0.1)) {
    config["stages"] = {
        {{"train_files", config["train_files"]}, {"steps", 3}},
        {{"train_files", draw_data_files(dice, folder / "second", media)}, {"steps", 2}}};
    config.erase("train_files");
  }
  // A name that runs of one draw share: the second finds what the first put there.
  config["feature_cache"] = dice.chance(0.5) ? "off" : (folder / "features").string();
}

// Keys that may have another value when a run goes on.
Json draw_free_keys(Dice& dice) {
  Json keys = Json::object();
  if (dice.chance(0.5)) keys["save_steps"] = dice.between(1, 4);
  if (dice.chance(0.5)) keys["save_total_limit"] = dice.between(1, 3);
  if (dice.chance(0.5)) keys["dataloader_num_workers"] = dice.between(1, 4);
  if (dice.chance(0.5)) keys["report_to"] = dice.some({"tensorboard", "html"});
  if (dice.chance(0.3)) keys["max_bad_samples"] = 3;
  return keys;
}

std::vector<TrainingCut> draw_cuts(Dice& dice, int processes) {
  std::vector<TrainingCut> cuts(static_cast<std::size_t>(dice.between(1, 3)));
  for (TrainingCut& cut : cuts) {
    cut.signal = dice.pick(std::vector<int>{SIGKILL, SIGKILL, SIGKILL, SIGTERM, SIGINT, SIGHUP});
    cut.rows = dice.below(5);
    cut.later = std::chrono::microseconds(dice.below(30'000));
    // One that dies before all have met is waited for.
    if (dice.chance(0.3)) cut.changes = draw_free_keys(dice);
    cut.hits_one = processes > 1 && cut.rows > 0 && dice.chance(0.5);
  }
  return cuts;
}

}  // namespace

TrainingDraw draw_training(Dice& dice, const fs::path& folder) {
  TrainingDraw draw;
  Json& config = draw.config;
  config["model_name_or_path"] =
      fixture(dice.pick({"smolvlm_tiny", "smolvlm_tiny", "smolvlm_odd", "idefics3_tiny",
                         "qwen2_vl_tiny", "qwen2_5_vl_tiny", "qwen3_vl_tiny", "internvl_tiny",
                         "internvl3_5_tiny"}))
          .string();
  draw.dtype = dice.pick({"auto", "float32", "float32", "bfloat16"});
  DrawnMedia media;
  draw_samples(dice, folder, media, config);
  draw_method(dice, config);
  draw_batches(dice, config);
  draw_optimizer(dice, config);
  draw_run(dice, config);
  if (dice.chance(0.7)) draw_evaluation(dice, folder, media, config);
  draw.processes = dice.chance(0.1) ? 2 : 1;
  if (draw.processes > 1) config["ddp_timeout"] = 120;
  draw.cuts = draw_cuts(dice, draw.processes);
  return draw;
}

}  // namespace vlm
