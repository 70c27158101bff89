// The keys of a config file, with their meanings: what `vlm finetune --help` prints.
#include <nlohmann/json.hpp>

#include "data/conversations/row_format.h"
#include "train/config/train_config.h"

namespace vlm::train {

Fields TrainConfig::fields() {
  augmentation_fields_ = augmentation.fields();
  schedule_fields_ = lr_scheduler_kwargs.fields();
  Fields all = {
      {"model_name_or_path", &model_name_or_path,
       "Model folder, or org/name (in the Hugging Face cache, or pulled into it)"},
      {"output_dir", &output_dir, "Folder for the result, checkpoints and metrics.jsonl"},
      {"method",
       &method,
       "What is trained: adapters (lora, dora; qlora on an NF4 base), or every weight",
       {"lora", "qlora", "dora", "full"}},
      {"adapter", &adapter,
       "PEFT adapter folder to go on from; its settings replace the LoRA keys"},
      {"init_weights", &init_weights, "Where a full training starts", {"checkpoint", "random"}},
      {"freeze", &freeze, "Parts kept as they are: vision_model, connector, text_model, lm_head"},
      {"train_files", &train_files,
       "Data files and picture folders: paths, or objects with path, weight and keys of their own"},
      {"eval_files", &eval_files, "The same, for the evaluation loss"},
      {"stages", &stages,
       "In place of train_files: list of {train_files, steps}, one after the other"},
      {"dataset_format", &dataset_format, "What rows are; auto: told by their columns",
       data::row_formats()},
      {"field_map", &field_map,
       "Other names of columns: {query: question, response: answer}; null leaves one out"},
      {"text_column", &text_column, "Column of a row that holds the answer"},
      {"prompt", &prompt, "Question put to every picture that comes without one"},
      {"image_folder", &image_folder,
       "Folder that pictures' paths begin at; empty: the folder of the data file"},
      {"train_on", &train_on, "Turns that are learned", data::train_on_names()},
      {"json_schema", &json_schema,
       "Schema that the answers are meant to satisfy, or the path of its file: inspect-data tells "
       "which don't"},
      {"chat_template_kwargs", &chat_template_kwargs,
       "Variables for the chat template: {enable_thinking: false}"},
      {"template_date", &template_date,
       "Day that a chat template takes for today (YYYY-MM-DD); null: it has none, and writes what "
       "it has for that case"},
      {"max_length", &max_length,
       "Longest sample in tokens; 0: what the model has positions for (max_position_embeddings), "
       "which bounds it in any case"},
      {"length_policy", &length_policy,
       "What a longer sample is: an error, cut off behind its pictures, or passed over",
       data::length_policy_names()},
      {"max_bad_samples", &max_bad_samples,
       "Malformed samples that may be passed over; each is told, and listed in "
       "skipped_samples.jsonl"},
      {"shuffle", &shuffle, "New seeded order every epoch; false: the order of the files"},
      {"packing", &packing, "The samples of a step packed into rows without padding"},
      {"max_tokens_per_batch", &max_tokens_per_batch, "With packing: tokens a row"},
      {"max_tiles_per_batch", &max_tiles_per_batch,
       "With packing: picture tiles a row; 0: no bound"},
      {"share_pictures", &share_pictures,
       "With packing: samples about the same pictures meet in a step and stand behind one copy"},
      {"group_by_length", &group_by_length,
       "Samples of similar length meet in a step, for less padding; reads all data first"},
      {"feature_cache", &feature_cache,
       "Folder that keeps the features of pictures while nothing of them is trained or augmented; "
       "auto: the user's cache folder, if the vision encoder is large; off"},
      {"feature_cache_gb", &feature_cache_gb, "Bound of that folder in GB"},
      {"dataloader_num_workers", &dataloader_num_workers, "Threads that read samples ahead"},
      {"augmentation", &augmentation_fields_},
      {"r", &r, "Rank of the adapters"},
      {"lora_alpha", &lora_alpha, "Scaling is lora_alpha / r"},
      {"lora_dropout", &lora_dropout, "Dropout in front of A"},
      {"target_modules", &target_modules,
       "Names of linear layers or embeddings (within target_parts), or one regular expression for "
       "whole names, or all-linear"},
      {"target_parts", &target_parts,
       "Parts that a list of target_modules is looked up in; []: the text model"},
      {"exclude_modules", &exclude_modules,
       "Modules that target_modules leaves out: names, or one regular expression"},
      {"layers_to_transform", &layers_to_transform,
       "Numbers of the layers that a list of target_modules is for; null: all"},
      {"layers_pattern", &layers_pattern, "Names of the lists that these layers are numbered in"},
      {"use_rslora", &use_rslora, "Scaling is lora_alpha / sqrt(r)"},
      {"init_lora_weights", &init_lora_weights,
       "How adapters begin: true (A uniform, B zero), gaussian, or pissa"},
      {"rank_pattern", &rank_pattern,
       "Other ranks for some layers: {pattern: r}; the first that matches counts"},
      {"alpha_pattern", &alpha_pattern,
       "Other alphas for some layers: {pattern: alpha}, in the same way"},
      {"bias",
       &bias,
       "Biases that are trained too: those of adapted layers, or all",
       {"none", "lora_only", "all"}},
      {"modules_to_save", &modules_to_save,
       "Modules that are trained whole and stored with the adapter"},
      {"trainable_token_indices", &trainable_token_indices,
       "Tokens whose embeddings are trained: a list of ids, or {layer: ids}"},
      {"ensure_weight_tying", &ensure_weight_tying,
       "Embeddings and output head that are one weight stay one when they are trained"},
      {"num_train_epochs", &num_train_epochs, "Passes over train_files"},
      {"max_steps", &max_steps, "Optimizer steps in place of num_train_epochs; -1: off"},
      {"per_device_train_batch_size", &per_device_train_batch_size, "Samples a forward pass"},
      {"per_device_eval_batch_size", &per_device_eval_batch_size, "The same in evaluation"},
      {"gradient_accumulation_steps", &gradient_accumulation_steps,
       "Forward passes an optimizer step"},
      {"learning_rate", &learning_rate, "Peak learning rate"},
      {"vision_lr", &vision_lr, "Another peak for vision_model"},
      {"connector_lr", &connector_lr, "Another peak for connector"},
      {"text_lr", &text_lr, "Another peak for text_model and lm_head"},
      {"loraplus_lr_ratio", &loraplus_lr_ratio, "LoRA+: times the rate for B and for vectors"},
      {"optim", &optim, "Optimizer", {"adamw", "adamw_8bit", "sgd"}},
      {"weight_decay", &weight_decay, "Decay; biases and norms have none"},
      {"adam_beta1", &adam_beta1, "AdamW beta 1"},
      {"adam_beta2", &adam_beta2, "AdamW beta 2"},
      {"adam_epsilon", &adam_epsilon, "AdamW epsilon"},
      {"sgd_momentum", &sgd_momentum, "Momentum of sgd"},
      {"max_grad_norm", &max_grad_norm, "Gradients are scaled down to this norm; 0: off"},
      {"lr_scheduler_type",
       &lr_scheduler_type,
       "Learning rate after the warm-up",
       {"linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup",
        "warmup_stable_decay"}},
      {"lr_scheduler_kwargs", &schedule_fields_},
      {"warmup_steps", &warmup_steps, "Steps from 0 to the peak"},
      {"warmup_ratio", &warmup_ratio,
       "The same as a fraction of all steps, when warmup_steps is 0"},
      {"gradient_checkpointing", &gradient_checkpointing,
       "Recompute activations: less memory, more time"},
      {"memory_gb", &memory_gb,
       "GB (10^9 bytes) that the run may take: it is planned first, recomputes activations where "
       "that makes it fit, and is refused where nothing does; 0: not looked at"},
      {"seed", &seed, "Of order, adapters, dropout and augmentation"},
      {"logging_steps", &logging_steps, "Steps between rows of metrics.jsonl"},
      {"eval_steps", &eval_steps, "Steps between evaluations; 0: at the end only"},
      {"save_steps", &save_steps, "Steps between checkpoints; 0: none"},
      {"save_total_limit", &save_total_limit, "Checkpoints kept, beside the best"},
  };
  const Fields clips = video.fields();
  const auto after = std::find_if(all.begin(), all.end(),
                                  [](const Field& field) { return field.name == "augmentation"; });
  all.insert(after + 1, clips.begin(), clips.end());
  const Fields of_evaluation = evaluation.fields();
  all.insert(all.end(), of_evaluation.begin(), of_evaluation.end());
  return all;
}

}  // namespace vlm::train
