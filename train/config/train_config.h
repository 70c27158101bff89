// The fine-tuning config file: names as PEFT's LoraConfig and transformers' TrainingArguments use
// them.
//
//   CONFIG.json + --set key=value ─► load_train_config ─► TrainConfig, checked
//
// Every field is declared once, in fields(); README and `vlm finetune --help` show what it prints.
// Relative paths are taken from the current folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/encode_options.h"
#include "data/sample_size.h"
#include "train/config/evaluation_config.h"
#include "train/optimizer/optimizer.h"
#include "train/optimizer/schedule.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/schema/json_schema.h"
#include "vlm/nn/lora/lora_config.h"

namespace vlm::train {

// A part of the training with its own files.
struct Stage {
  Json train_files;  // as TrainConfig's
  std::int64_t steps = 0;
};

// Options of some schedules, under the names of their arguments in transformers.
struct ScheduleOptions {
  std::optional<double> num_cycles;
  std::optional<std::int64_t> num_decay_steps;
  std::optional<double> min_lr_ratio;
  std::optional<std::string> warmup_type;
  std::optional<std::string> decay_type;

  Fields fields();
  // Throws Error for an option that the schedule doesn't have, and for a missing one that it needs.
  void check(const std::string& schedule) const;
};

struct TrainConfig {
  std::string model_name_or_path;
  std::string output_dir;
  std::string method = "lora";
  std::optional<std::string> adapter;
  std::string init_weights = "checkpoint";
  std::vector<std::string> freeze;

  // Data
  Json train_files = Json::array();  // paths, or objects (data::parse_data_files)
  Json eval_files = Json::array();
  Json stages;  // list of {"train_files", "steps"}
  std::string dataset_format = "auto";
  Json field_map;  // {our name of a column: its name in the files}
  std::string text_column = "text";
  std::string prompt = "Describe the image.";
  std::string image_folder;
  std::string train_on = "assistant";
  OrderedJson json_schema;  // or the path of its file
  std::int64_t max_length = 0;
  std::string length_policy = "error";
  std::int64_t max_bad_samples = 0;
  bool shuffle = true;
  bool packing = false;
  std::int64_t max_tokens_per_batch = 2048;
  std::int64_t max_tiles_per_batch = 0;
  bool share_pictures = false;
  bool group_by_length = false;
  std::string feature_cache = "auto";
  double feature_cache_gb = 10;
  std::int64_t dataloader_num_workers = 2;
  data::AugmentConfig augmentation;
  data::VideoSampling video;

  // LoRA
  std::int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  Names target_modules = std::vector<std::string>{"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                  "gate_proj", "up_proj", "down_proj"};
  std::vector<std::string> target_parts;  // of a list; none: text_model
  Names exclude_modules = std::vector<std::string>{};
  Json layers_to_transform;  // a list of integers, or one
  Names layers_pattern = std::vector<std::string>{};
  bool use_rslora = false;
  Json init_lora_weights = true;
  OrderedJson rank_pattern;  // the first pattern that matches is used
  OrderedJson alpha_pattern;
  std::string bias = "none";
  std::vector<std::string> modules_to_save;
  OrderedJson trainable_token_indices;  // a list of integers, or {layer: list}
  bool ensure_weight_tying = false;

  // Chat template
  OrderedJson chat_template_kwargs;
  std::optional<std::string> template_date;

  // Optimization
  double num_train_epochs = 3;
  std::int64_t max_steps = -1;
  std::int64_t per_device_train_batch_size = 8;
  std::int64_t per_device_eval_batch_size = 8;
  std::int64_t gradient_accumulation_steps = 1;
  double learning_rate = 5e-5;
  std::optional<double> vision_lr, connector_lr, text_lr;
  std::optional<double> loraplus_lr_ratio;
  std::string optim = "adamw";
  double weight_decay = 0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double sgd_momentum = 0;
  double max_grad_norm = 1.0;
  std::string lr_scheduler_type = "linear";
  ScheduleOptions lr_scheduler_kwargs;
  std::int64_t warmup_steps = 0;
  double warmup_ratio = 0;
  bool gradient_checkpointing = false;
  double memory_gb = 0;
  std::int64_t seed = 42;

  // Output
  std::int64_t logging_steps = 10;
  std::int64_t eval_steps = 0;
  std::int64_t save_steps = 500;
  std::int64_t save_total_limit = 2;

  EvaluationConfig evaluation;  // its keys stand among the others

  Fields fields();
  std::vector<Stage> parse_stages() const;
  // True for lora, qlora and dora.
  bool trains_adapter() const { return method != "full"; }
  TemplateOptions template_options() const;
  data::DataOptions data_options() const;
  // What json_schema says; nothing where it says nothing. Throws Error for a schema that is none.
  std::optional<JsonSchema> answer_schema() const;
  // The seed, which differs for each sample, is not set.
  data::EncodeOptions encode_options() const;
  data::MeasureOptions measure_options() const;
  LoraConfig lora() const;
  OptimizerOptions optimizer() const;
  Schedule schedule(std::int64_t total_steps) const;

 private:
  Fields augmentation_fields_, schedule_fields_;  // what the nested fields point to
};

// Reads and checks a config file, with overrides "key=value" applied. Throws Error naming file and
// key.
TrainConfig load_train_config(const std::filesystem::path& path,
                              const std::vector<std::string>& overrides);

}  // namespace vlm::train
