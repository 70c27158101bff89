#include "train/config/foreign_keys.h"

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::train {
namespace {

struct ForeignKey {
  const char* trainer;
  const char* ours;
};

// By the configuration references of axolotl 0.12, LLaMA-Factory 0.9, ms-swift 3 and TRL 0.24.
const std::map<std::string, ForeignKey>& foreign_keys() {
  static const std::map<std::string, ForeignKey> keys = {
      {"base_model", {"axolotl", "model_name_or_path"}},
      {"model", {"ms-swift", "model_name_or_path"}},
      {"datasets", {"axolotl", "train_files"}},
      {"dataset", {"LLaMA-Factory", "train_files"}},
      {"dataset_name", {"TRL", "train_files"}},
      {"data_path", {"LLaVA", "train_files"}},
      {"eval_dataset", {"LLaMA-Factory", "eval_files"}},
      {"test_datasets", {"axolotl", "eval_files"}},
      {"val_dataset", {"ms-swift", "eval_files"}},
      {"micro_batch_size", {"axolotl", "per_device_train_batch_size"}},
      {"eval_batch_size", {"axolotl", "per_device_eval_batch_size"}},
      {"num_epochs", {"axolotl", "num_train_epochs"}},
      {"sequence_len", {"axolotl", "max_length"}},
      {"cutoff_len", {"LLaMA-Factory", "max_length"}},
      {"max_seq_length", {"TRL", "max_length"}},
      {"model_max_length", {"LLaVA", "max_length"}},
      {"sample_packing", {"axolotl", "packing"}},
      {"adapter_name_or_path", {"LLaMA-Factory", "adapter"}},
      {"lora_model_dir", {"axolotl", "adapter"}},
      {"finetuning_type", {"LLaMA-Factory", "method"}},
      {"train_type", {"ms-swift", "method"}},
      {"load_in_4bit", {"axolotl", "method: qlora"}},
      {"use_dora", {"LLaMA-Factory", "method: dora"}},
      {"peft_use_dora", {"axolotl", "method: dora"}},
      {"lora_r", {"axolotl", "r"}},
      {"lora_rank", {"LLaMA-Factory", "r"}},
      {"lora_target", {"LLaMA-Factory", "target_modules"}},
      {"lora_target_modules", {"axolotl", "target_modules"}},
      {"lora_target_linear", {"axolotl", "target_modules: all-linear"}},
      {"lora_modules_to_save", {"axolotl", "modules_to_save"}},
      {"additional_target", {"LLaMA-Factory", "modules_to_save"}},
      {"freeze_vision_tower", {"LLaMA-Factory", "freeze: [vision_model]"}},
      {"freeze_vit", {"ms-swift", "freeze: [vision_model]"}},
      {"freeze_aligner", {"ms-swift", "freeze: [connector]"}},
      {"optimizer", {"axolotl", "optim"}},
      {"lr_scheduler", {"axolotl", "lr_scheduler_type"}},
      {"loraplus_lr_ratio_embedding", {"LLaMA-Factory", "loraplus_lr_ratio"}},
      {"max_samples", {"LLaMA-Factory", "max_steps, or a smaller file"}},
      {"evals_per_epoch", {"axolotl", "eval_steps"}},
      {"saves_per_epoch", {"axolotl", "save_steps"}},
      {"eval_strategy", {"TRL", "eval_steps"}},
      {"save_strategy", {"TRL", "save_steps"}},
      {"bf16", {"TRL", "the command line: --dtype bfloat16"}},
      {"torch_dtype", {"ms-swift", "the command line: --dtype"}},
      {"preprocessing_num_workers", {"LLaMA-Factory", "dataloader_num_workers"}},
      {"dataloader_num_proc", {"ms-swift", "dataloader_num_workers"}},
      {"gradient_checkpointing_kwargs", {"axolotl", "gradient_checkpointing"}},
      {"use_wandb", {"axolotl", "report_to"}},
  };
  return keys;
}

}  // namespace

void refuse_foreign_keys(const OrderedJson& config) {
  if (!config.is_object()) return;
  for (const auto& [key, value] : config.items()) {
    const auto found = foreign_keys().find(key);
    if (found == foreign_keys().end()) continue;
    throw Error({.what = concat("unknown key '", key, "'"),
                 .hint = concat(found->second.trainer, "'s; here it is ", found->second.ours)});
  }
}

}  // namespace vlm::train
