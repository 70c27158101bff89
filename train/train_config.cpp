#include "train/train_config.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::train {
namespace {

const std::vector<std::string> kParts = {"vision_model", "connector", "text_model", "lm_head"};

Error range_error(const char* key, const std::string& got, const std::string& wanted) {
  return Error({.what = "value out of range", .where = key, .got = got, .wanted = wanted});
}

void require_at_least(std::int64_t value, std::int64_t least, const char* key) {
  if (value < least) throw range_error(key, concat(value), concat("at least ", least));
}

void require_between(double value, double least, double most, const char* key) {
  if (!(value >= least && value <= most)) {
    throw range_error(key, concat(value), concat(least, " to ", most));
  }
}

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
  if (has_stages) config.parse_stages();
  config.augmentation.check();
  config.video.check("video_");
}

void check_numbers(const TrainConfig& config) {
  require_at_least(config.per_device_train_batch_size, 1, "per_device_train_batch_size");
  require_at_least(config.per_device_eval_batch_size, 1, "per_device_eval_batch_size");
  require_at_least(config.gradient_accumulation_steps, 1, "gradient_accumulation_steps");
  require_at_least(config.max_length, 0, "max_length");
  require_at_least(config.warmup_steps, 0, "warmup_steps");
  require_at_least(config.logging_steps, 1, "logging_steps");
  require_at_least(config.eval_steps, 0, "eval_steps");
  require_at_least(config.save_steps, 0, "save_steps");
  require_at_least(config.save_total_limit, 1, "save_total_limit");
  require_between(config.learning_rate, 0, 1e3, "learning_rate");
  require_between(config.weight_decay, 0, 1e3, "weight_decay");
  require_between(config.adam_beta1, 0, 1 - 1e-9, "adam_beta1");
  require_between(config.adam_beta2, 0, 1 - 1e-9, "adam_beta2");
  require_between(config.adam_epsilon, 0, 1, "adam_epsilon");
  require_between(config.max_grad_norm, 0, 1e9, "max_grad_norm");
  require_between(config.warmup_ratio, 0, 1, "warmup_ratio");
  if (config.max_steps < 0 && !(config.num_train_epochs > 0)) {
    throw range_error("num_train_epochs", concat(config.num_train_epochs), "more than 0");
  }
  if (config.eval_steps > 0 && config.eval_files.empty()) {
    throw Error({.what = "eval_steps without eval_files", .where = "eval_steps"});
  }
}

void check(const TrainConfig& config) {
  for (const auto& [key, value] : {std::pair{"model_name_or_path", &config.model_name_or_path},
                                   std::pair{"output_dir", &config.output_dir}}) {
    if (value->empty()) throw Error({.what = "required key is missing", .where = key});
  }
  if (config.adapter && config.method != "lora") {
    throw Error({.what = "adapter needs method lora", .where = "adapter", .got = config.method});
  }
  if (config.init_weights == "random" && config.method != "full") {
    throw Error(
        {.what = "random weights need method full", .where = "init_weights", .got = config.method});
  }
  check_parts(config.freeze, "freeze");
  check_parts(config.target_parts, "target_parts");
  check_data(config);
  check_numbers(config);
  if (config.method == "lora") config.lora();
}

// A list of names narrowed to parts of the model, as one regular expression that PEFT reads the
// same way.
std::string scoped_pattern(const std::vector<std::string>& names,
                           const std::vector<std::string>& parts) {
  std::vector<std::string> escaped;
  for (const std::string& name : names) {
    std::string text;
    for (const char c : name) text += c == '.' ? std::string("\\.") : std::string(1, c);
    escaped.push_back(text);
  }
  return concat("(?:.*\\.)?(?:", join(parts, "|"), ")(?:\\..*)?\\.(?:", join(escaped, "|"), ")");
}

}  // namespace

Fields TrainConfig::fields() {
  augmentation_fields_ = augmentation.fields();
  Fields all = {
      {"model_name_or_path", &model_name_or_path,
       "Model folder, or org/name (in the Hugging Face cache, or pulled into it)"},
      {"output_dir", &output_dir, "Folder for the result, checkpoints and metrics.jsonl"},
      {"method", &method, "What is trained: adapters, or every weight", {"lora", "full"}},
      {"adapter", &adapter,
       "PEFT adapter folder to go on from; its settings replace the LoRA keys"},
      {"init_weights", &init_weights, "Where a full training starts", {"checkpoint", "random"}},
      {"freeze", &freeze, "Parts kept as they are: vision_model, connector, text_model, lm_head"},
      {"train_files", &train_files, "JSONL files and picture folders"},
      {"eval_files", &eval_files, "The same, for the evaluation loss"},
      {"stages", &stages,
       "In place of train_files: list of {train_files, steps}, one after the other"},
      {"text_column", &text_column, "Column of a picture folder's metadata that holds the answer"},
      {"prompt", &prompt, "Question put to every picture of a picture folder"},
      {"max_length", &max_length, "Longest sample in tokens, longer is an error; 0: no bound"},
      {"shuffle", &shuffle, "New seeded order every epoch; false: the order of the files"},
      {"augmentation", &augmentation_fields_},
      {"r", &r, "Rank of the adapters"},
      {"lora_alpha", &lora_alpha, "Scaling is lora_alpha / r"},
      {"lora_dropout", &lora_dropout, "Dropout in front of A"},
      {"target_modules", &target_modules,
       "Names of linear layers (within target_parts), or one regular expression for whole names"},
      {"target_parts", &target_parts, "Parts that a list of target_modules is looked up in"},
      {"use_rslora", &use_rslora, "Scaling is lora_alpha / sqrt(r)"},
      {"rank_pattern", &rank_pattern, "Other ranks for some layers: {pattern: r}"},
      {"alpha_pattern", &alpha_pattern, "Other alphas for some layers: {pattern: alpha}"},
      {"num_train_epochs", &num_train_epochs, "Passes over train_files"},
      {"max_steps", &max_steps, "Optimizer steps in place of num_train_epochs; -1: off"},
      {"per_device_train_batch_size", &per_device_train_batch_size, "Samples a forward pass"},
      {"per_device_eval_batch_size", &per_device_eval_batch_size, "The same in evaluation"},
      {"gradient_accumulation_steps", &gradient_accumulation_steps,
       "Forward passes an optimizer step"},
      {"learning_rate", &learning_rate, "Peak learning rate"},
      {"weight_decay", &weight_decay, "AdamW's decay; biases and norms have none"},
      {"adam_beta1", &adam_beta1, "AdamW beta 1"},
      {"adam_beta2", &adam_beta2, "AdamW beta 2"},
      {"adam_epsilon", &adam_epsilon, "AdamW epsilon"},
      {"max_grad_norm", &max_grad_norm, "Gradients are scaled down to this norm; 0: off"},
      {"lr_scheduler_type",
       &lr_scheduler_type,
       "Learning rate after the warm-up",
       {"linear", "cosine", "constant", "constant_with_warmup"}},
      {"warmup_steps", &warmup_steps, "Steps from 0 to the peak"},
      {"warmup_ratio", &warmup_ratio,
       "The same as a fraction of all steps, when warmup_steps is 0"},
      {"gradient_checkpointing", &gradient_checkpointing,
       "Recompute activations: less memory, more time"},
      {"seed", &seed, "Of order, adapters, dropout and augmentation"},
      {"logging_steps", &logging_steps, "Steps between rows of metrics.jsonl"},
      {"eval_steps", &eval_steps, "Steps between evaluations; 0: at the end only"},
      {"save_steps", &save_steps, "Steps between checkpoints; 0: none"},
      {"save_total_limit", &save_total_limit, "Checkpoints kept"},
  };
  const Fields clips = video.fields();
  const auto after = std::find_if(all.begin(), all.end(),
                                  [](const Field& field) { return field.name == "augmentation"; });
  all.insert(after + 1, clips.begin(), clips.end());
  return all;
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
    parsed.push_back(stage);
  }
  return parsed;
}

LoraConfig TrainConfig::lora() const {
  OrderedJson json;
  json["r"] = r;
  json["lora_alpha"] = lora_alpha;
  json["lora_dropout"] = lora_dropout;
  json["use_rslora"] = use_rslora;
  json["rank_pattern"] = OrderedJson::parse(rank_pattern.dump());
  json["alpha_pattern"] = OrderedJson::parse(alpha_pattern.dump());
  if (const auto* names = std::get_if<std::vector<std::string>>(&target_modules)) {
    json["target_modules"] = scoped_pattern(*names, target_parts);
  } else {
    json["target_modules"] = std::get<std::string>(target_modules);
  }
  return LoraConfig::parse(json, "config");
}

TrainConfig load_train_config(const std::filesystem::path& path,
                              const std::vector<std::string>& overrides) {
  TrainConfig config;
  const Fields fields = config.fields();
  read_fields(load_json(path), fields, UnknownKeys::kRefuse, path.string());
  for (const std::string& assignment : overrides) set_field(fields, assignment, "--set");
  try {
    check(config);
  } catch (const Error& error) {
    throw located(error, path.string());
  }
  return config;
}

}  // namespace vlm::train
