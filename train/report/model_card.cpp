#include "train/report/model_card.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"

namespace vlm::train {
namespace {

bool is_adapter(const OrderedJson& config) {
  return config.value("method", "lora") != "full";
}

// A YAML scalar in double quotes: JSON's strings are that.
std::string quoted(const std::string& text) {
  return Json(text).dump();
}

std::string front_matter(const OrderedJson& config) {
  const std::string base = config.value("model_name_or_path", "");
  std::string yaml = concat("---\nbase_model: ", quoted(base),
                            "\nlibrary_name: ", is_adapter(config) ? "peft" : "transformers",
                            "\npipeline_tag: image-text-to-text\ntags:\n");
  if (is_adapter(config)) {
    yaml += concat("- ", quoted("base_model:adapter:" + base), "\n- lora\n- transformers\n");
  }
  return yaml + "---\n\n";
}

std::string settings(const OrderedJson& config) {
  std::string table = "| Setting | Value |\n| --- | --- |\n";
  for (const char* key :
       {"method", "r", "lora_alpha", "lora_dropout", "use_rslora", "freeze", "target_parts",
        "train_files", "stages", "eval_files", "num_train_epochs", "max_steps",
        "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
        "lr_scheduler_type", "warmup_steps", "weight_decay", "seed"}) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null() || *found == OrderedJson::array()) continue;
    table += concat("| `", key, "` | `", found->dump(), "` |\n");
  }
  return table;
}

std::string figures(const RunRecord& record) {
  std::string text;
  if (!record.rows.empty()) text += concat("Steps: ", record.rows.back()["step"].dump(), ".");
  if (record.result_step)
    text += concat(" The weights are those of step ", *record.result_step, ".");
  for (const auto& [name, key] :
       {std::pair{"Last training loss", "loss"}, std::pair{"Evaluation loss", "eval_loss"}}) {
    const auto value = record.result(key);
    if (value) text += concat(" ", name, ": ", format_number(*value), ".");
  }
  return text.empty() ? "" : text + "\n\n";
}

std::string comparison(const RunRecord& record) {
  if (record.comparisons.empty()) {
    return "It was not compared with the untuned model: `eval_metrics` names no metric.\n\n";
  }
  std::string table = concat(
      "On ", record.after.size(),
      " held-out items, each answered by the untuned model and by this "
      "one (greedy). The interval is the middle 95 % of a paired bootstrap over the items, 10,000 "
      "samples.\n\n| Metric | Before | After | Difference | 95 % interval | Items better | Items "
      "worse |\n| --- | --- | --- | --- | --- | --- | --- |\n");
  for (const auto& [metric, values] : record.comparisons) {
    table += concat("| ", metric, " | ", format_number(values.before), " | ",
                    format_number(values.after), " | ", format_number(values.difference), " | ",
                    format_number(values.low), " to ", format_number(values.high), " | ",
                    values.better, " | ", values.worse, " |\n");
  }
  return table + "\n";
}

std::string usage(const OrderedJson& config) {
  const std::string base = config.value("model_name_or_path", "");
  if (!is_adapter(config)) {
    return "```bash\nvlm generate --model . --image picture.png --prompt \"What is this?\"\n```\n";
  }
  return concat("```bash\nvlm generate --model ", base,
                " --adapter . --image picture.png --prompt \"What is this?\"\n```\n\n"
                "```python\nfrom peft import PeftModel\nfrom transformers import "
                "AutoModelForImageTextToText\n\nmodel = PeftModel.from_pretrained(\n    "
                "AutoModelForImageTextToText.from_pretrained(",
                quoted(base), "), \".\")\n```\n");
}

}  // namespace

std::string make_model_card(const RunRecord& record) {
  const OrderedJson& config = record.config;
  const std::string base = config.value("model_name_or_path", "");
  return concat(front_matter(config), "# ", describe_method(config), " fine-tuning of ", base,
                "\n\n", figures(record), "## Compared with the untuned model\n\n",
                comparison(record), "## Use\n\n", usage(config), "\n## Training\n\n",
                settings(config),
                "\nAll settings are in `train_config.json`, the course of the run in "
                "`metrics.jsonl`.\n");
}

}  // namespace vlm::train
