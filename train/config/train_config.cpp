#include "train/config/train_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "data/dataset.h"
#include "train/config/adapter_keys.h"
#include "train/config/foreign_keys.h"
#include "train/config/range_checks.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/config_text.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::train {
namespace {

constexpr const char* kCommandLine = "command line";
const std::vector<std::string> kShapes = {"linear", "cosine", "1-sqrt"};
const std::vector<std::string> kParts = {"vision_model", "connector", "text_model", "lm_head"};

void check_parts(const std::vector<std::string>& parts, const char* key) {
  for (const std::string& part : parts) {
    if (std::find(kParts.begin(), kParts.end(), part) != kParts.end()) continue;
    throw Error({.what = "unknown part",
                 .where = key,
                 .got = concat("'", part, "'"),
                 .wanted = join(kParts)});
  }
}

void check_data(const TrainConfig& config) {
  const bool has_stages = !config.stages.is_null() && !config.stages.empty();
  if (config.train_files.empty() == !has_stages) {
    throw Error({.what = has_stages ? "both train_files and stages are given" : "no training data",
                 .where = "train_files",
                 .wanted = "either train_files or stages"});
  }
  const data::DataOptions options = config.data_options();
  for (const Stage& stage : config.parse_stages()) {
    data::parse_data_files(stage.train_files, options, "stages.train_files");
  }
  data::parse_data_files(config.train_files, options, "train_files");
  data::parse_data_files(config.eval_files, options, "eval_files");
  config.answer_schema();
  config.augmentation.check();
  config.video.check("video_");
  if (config.share_pictures && !config.packing) {
    throw Error({.what = "pictures are only shared in packed rows",
                 .where = "share_pictures",
                 .wanted = "packing"});
  }
  if (config.share_pictures && !config.augmentation.is_off()) {
    throw Error({.what = "augmented pictures can't be shared: they differ from sample to sample",
                 .where = "share_pictures"});
  }
  if (config.group_by_length && config.packing) {
    throw Error({.what = "packed rows have no padding, so lengths needn't be grouped",
                 .where = "group_by_length"});
  }
}

void check_numbers(const TrainConfig& config) {
  const auto count = require_count;
  count(config.per_device_train_batch_size, 1, kCountBound, "per_device_train_batch_size");
  count(config.per_device_eval_batch_size, 1, kCountBound, "per_device_eval_batch_size");
  count(config.gradient_accumulation_steps, 1, kCountBound, "gradient_accumulation_steps");
  count(config.max_length, 0, kStepBound, "max_length");
  count(config.max_bad_samples, 0, kStepBound, "max_bad_samples");
  count(config.max_tokens_per_batch, 1, kStepBound, "max_tokens_per_batch");
  count(config.max_tiles_per_batch, 0, kStepBound, "max_tiles_per_batch");
  count(config.dataloader_num_workers, 1, 1024, "dataloader_num_workers");
  require_between(config.memory_gb, 0, 1e6, "memory_gb");
  require_between(config.feature_cache_gb, 0, 1e6, "feature_cache_gb");
  count(config.warmup_steps, 0, kStepBound, "warmup_steps");
  count(config.logging_steps, 1, kStepBound, "logging_steps");
  count(config.eval_steps, 0, kStepBound, "eval_steps");
  count(config.save_steps, 0, kStepBound, "save_steps");
  count(config.save_total_limit, 1, kStepBound, "save_total_limit");
  if (!(config.lora_alpha > 0 && config.lora_alpha <= kCountBound)) {
    throw_out_of_range("lora_alpha", concat(config.lora_alpha),
                       concat("more than 0, at most ", kCountBound));
  }
  require_between(config.learning_rate, 0, 1e3, "learning_rate");
  require_between(config.weight_decay, 0, 1e3, "weight_decay");
  require_between(config.adam_beta1, 0, 1 - 1e-9, "adam_beta1");
  require_between(config.adam_beta2, 0, 1 - 1e-9, "adam_beta2");
  require_between(config.adam_epsilon, 0, 1, "adam_epsilon");
  require_between(config.max_grad_norm, 0, 1e9, "max_grad_norm");
  require_between(config.warmup_ratio, 0, 1, "warmup_ratio");
  if (config.max_steps == 0 || config.max_steps < -1 || config.max_steps > kStepBound) {
    throw_out_of_range("max_steps", concat(config.max_steps),
                       concat("1 to ", kStepBound, ", or -1 for num_train_epochs"));
  }
  if (!(config.num_train_epochs > 0 && config.num_train_epochs <= kCountBound)) {
    throw_out_of_range("num_train_epochs", concat(config.num_train_epochs),
                       concat("more than 0, at most ", kCountBound));
  }
  if (config.eval_steps > 0 && config.eval_files.empty()) {
    throw Error({.what = "eval_steps without eval_files", .where = "eval_steps"});
  }
  if (config.eval_steps == 0) config.evaluation.check_use(1);
}

void refuse(bool is_wrong, const char* key, const std::string& what, const std::string& got) {
  if (is_wrong) throw Error({.what = what, .where = key, .got = got});
}

void check_optimization(const TrainConfig& config) {
  for (const auto& [key, rate] :
       {std::pair{"vision_lr", config.vision_lr}, std::pair{"connector_lr", config.connector_lr},
        std::pair{"text_lr", config.text_lr}}) {
    if (!rate) continue;
    require_between(*rate, 0, 1e3, key);
    refuse(config.learning_rate == 0, key, "a part's rate needs a learning_rate to scale", "0");
  }
  if (config.loraplus_lr_ratio) {
    require_between(*config.loraplus_lr_ratio, 1, 1e6, "loraplus_lr_ratio");
  }
  require_between(config.sgd_momentum, 0, 1 - 1e-9, "sgd_momentum");
  refuse(config.sgd_momentum > 0 && config.optim != "sgd", "sgd_momentum", "only sgd has it",
         config.optim);
  config.lr_scheduler_kwargs.check(config.lr_scheduler_type);
}

void check(const TrainConfig& config) {
  for (const auto& [key, value] : {std::pair{"model_name_or_path", &config.model_name_or_path},
                                   std::pair{"output_dir", &config.output_dir}}) {
    if (value->empty()) throw Error({.what = "required key is missing", .where = key});
  }
  if (config.adapter && !config.trains_adapter()) {
    throw Error({.what = "adapter needs method lora, qlora or dora",
                 .where = "adapter",
                 .got = config.method});
  }
  if (config.init_weights == "random" && config.method != "full") {
    throw Error(
        {.what = "random weights need method full", .where = "init_weights", .got = config.method});
  }
  check_parts(config.freeze, "freeze");
  if (!config.chat_template_kwargs.is_null() && !config.chat_template_kwargs.is_object()) {
    throw Error({.what = "wrong type",
                 .where = "chat_template_kwargs",
                 .got = describe(Json(config.chat_template_kwargs)),
                 .wanted = "an object of names and values"});
  }
  check_parts(config.target_parts, "target_parts");
  check_data(config);
  check_numbers(config);
  check_adapter_keys(config);
  check_optimization(config);
  config.evaluation.check(!config.eval_files.empty());
  if (config.trains_adapter()) config.lora();
}

// Returns the keys that were given.
std::set<std::string> apply_overrides(const std::vector<std::string>& overrides,
                                      const Fields& fields) {
  std::set<std::string> keys;
  for (const std::string& assignment : overrides) {
    const std::string key = assignment.substr(0, assignment.find_first_of(".="));
    try {
      refuse_foreign_keys({{key, nullptr}});
    } catch (const Error& error) {
      ErrorParts parts = error.parts();
      parts.where = kCommandLine;
      throw Error(std::move(parts));
    }
    set_field(fields, assignment, kCommandLine);
    keys.insert(key);
  }
  return keys;
}

}  // namespace

Fields ScheduleOptions::fields() {
  return {{"num_cycles", &num_cycles, "Waves of the cosine; null: 0.5, with restarts 1"},
          {"num_decay_steps", &num_decay_steps, "Last steps that warmup_stable_decay falls in"},
          {"min_lr_ratio", &min_lr_ratio, "Where warmup_stable_decay ends, over the peak"},
          {"warmup_type", &warmup_type, "Of warmup_stable_decay; null: linear", kShapes},
          {"decay_type", &decay_type, "Of warmup_stable_decay; null: cosine", kShapes}};
}

void ScheduleOptions::check(const std::string& schedule) const {
  const std::string where = "lr_scheduler_kwargs.";
  const bool is_wsd = schedule == "warmup_stable_decay";
  const auto refuse_others = [&](bool is_given, bool has_it, const char* key) {
    if (!is_given || has_it) return;
    throw Error({.what = "the schedule has no such option", .where = where + key, .got = schedule});
  };
  refuse_others(num_cycles.has_value(), is_wsd || schedule.starts_with("cosine"), "num_cycles");
  refuse_others(num_decay_steps.has_value(), is_wsd, "num_decay_steps");
  refuse_others(min_lr_ratio.has_value(), is_wsd, "min_lr_ratio");
  refuse_others(warmup_type.has_value(), is_wsd, "warmup_type");
  refuse_others(decay_type.has_value(), is_wsd, "decay_type");
  if (is_wsd && num_decay_steps.value_or(0) < 1) {
    throw Error({.what = "warmup_stable_decay needs the length of its decay",
                 .where = where + "num_decay_steps"});
  }
  require_count(num_decay_steps.value_or(1), 1, kStepBound, "lr_scheduler_kwargs.num_decay_steps");
  if (num_cycles) require_between(*num_cycles, 1e-9, 1e6, "lr_scheduler_kwargs.num_cycles");
  if (min_lr_ratio) require_between(*min_lr_ratio, 0, 1, "lr_scheduler_kwargs.min_lr_ratio");
}

data::DataOptions TrainConfig::data_options() const {
  return {.format = dataset_format,
          .field_map = data::parse_field_map(field_map, "field_map"),
          .text_column = text_column,
          .prompt = prompt,
          .image_folder = image_folder};
}

std::optional<JsonSchema> TrainConfig::answer_schema() const {
  if (json_schema.is_null()) return std::nullopt;
  if (!json_schema.is_string()) return std::make_optional<JsonSchema>(json_schema, "json_schema");
  const std::string path = json_schema;
  return std::make_optional<JsonSchema>(load_ordered_json(path), path);
}

// Without a clock: the prompts of a run that goes on another day must be the same.
TemplateOptions TrainConfig::template_options() const {
  TemplateOptions options{.day = template_date, .has_clock = false};
  for (const auto& [name, value] : chat_template_kwargs.items())
    options.arguments[name] = value.dump();
  return options;
}

data::EncodeOptions TrainConfig::encode_options() const {
  return {.max_length = max_length,
          .length_policy = data::parse_length_policy(length_policy),
          .train_on = data::parse_train_on(train_on),
          .augmentation = augmentation,
          .video = video};
}

data::MeasureOptions TrainConfig::measure_options() const {
  return {.encode = encode_options(),
          .threads = dataloader_num_workers,
          .max_bad_samples = max_bad_samples};
}

std::vector<Stage> TrainConfig::parse_stages() const {
  std::vector<Stage> parsed;
  if (stages.is_null()) return parsed;
  if (!stages.is_array()) {
    throw Error(
        {.what = "wrong type", .where = "stages", .got = describe(stages), .wanted = "list"});
  }
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const std::string where = concat("stages[", i, "]");
    Stage stage;
    read_fields(stages[i], {{"train_files", &stage.train_files}, {"steps", &stage.steps}},
                UnknownKeys::kRefuse, where);
    if (stage.train_files.empty() || stage.steps < 1) {
      throw Error({.what = "a stage needs train_files and steps", .where = where});
    }
    require_count(stage.steps, 1, kStepBound, "stages.steps");
    parsed.push_back(stage);
  }
  return parsed;
}

OptimizerOptions TrainConfig::optimizer() const {
  return {.optim = optim,
          .beta1 = adam_beta1,
          .beta2 = adam_beta2,
          .epsilon = adam_epsilon,
          .weight_decay = weight_decay,
          .momentum = sgd_momentum};
}

Schedule TrainConfig::schedule(std::int64_t total_steps) const {
  const ScheduleOptions& options = lr_scheduler_kwargs;
  const auto by_ratio =
      static_cast<std::int64_t>(std::ceil(warmup_ratio * static_cast<double>(total_steps)));
  Schedule schedule{.type = lr_scheduler_type,
                    .learning_rate = learning_rate,
                    .warmup_steps = warmup_steps > 0 ? warmup_steps : by_ratio,
                    .total_steps = total_steps,
                    .num_cycles = options.num_cycles.value_or(0),
                    .num_decay_steps = options.num_decay_steps.value_or(0),
                    .min_lr_ratio = options.min_lr_ratio.value_or(0),
                    .warmup_type = options.warmup_type.value_or("linear"),
                    .decay_type = options.decay_type.value_or("cosine")};
  if (options.num_decay_steps && schedule.warmup_steps + *options.num_decay_steps > total_steps) {
    throw Error({.what = "warm-up and decay are longer than the run",
                 .where = "lr_scheduler_kwargs.num_decay_steps",
                 .got = concat(schedule.warmup_steps, " + ", schedule.num_decay_steps),
                 .wanted = concat("at most ", total_steps, " steps")});
  }
  return schedule;
}

TrainConfig load_train_config(const std::filesystem::path& path,
                              const std::vector<std::string>& overrides) {
  TrainConfig config;
  const Fields fields = config.fields();
  const ConfigText text = load_config_text(path);
  try {
    refuse_foreign_keys(text.values);
    read_fields(text.values, fields, UnknownKeys::kRefuse, path.string());
  } catch (const Error& error) {
    throw text.placed(error);
  }
  const std::set<std::string> given = apply_overrides(overrides, fields);
  if (std::holds_alternative<std::vector<std::string>>(config.target_modules) &&
      config.target_parts.empty()) {
    config.target_parts = {"text_model"};
  }
  try {
    check(config);
  } catch (const Error& error) {
    ErrorParts parts = error.parts();
    if (given.count(parts.where.substr(0, parts.where.find_first_of(".:["))) == 0) {
      throw text.placed(error);
    }
    parts.where = concat(kCommandLine, ": ", parts.where);
    throw Error(std::move(parts));
  }
  return config;
}

}  // namespace vlm::train
