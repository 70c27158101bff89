#include "infer/commands/inspect.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "vlm/core/json.h"
#include "vlm/io/checkpoint.h"
#include "vlm/io/hub/hub_pull.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

// To a tenth.
double megabytes(double bytes) {
  return std::round(bytes / 1e5) / 10;
}

// "model.text_model.layers.0.…" → "text_model"
std::string part_of(const VisionLanguageModel& model, const std::string& parameter) {
  for (const auto& [part, place] : model.parts()) {
    if (parameter.starts_with(place + ".")) return part;
  }
  return parameter.substr(0, parameter.find('.'));
}

OrderedJson shape_of(const Json& config) {
  OrderedJson shape = OrderedJson::object();
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "image_size", "patch_size", "vocab_size"}) {
    if (config.contains(key)) shape[key] = config[key];
  }
  return shape;
}

}  // namespace

OrderedJson inspect_model(const std::string& model_name) {
  const auto folder = find_or_pull_model(model_name);
  const ModelPtr model = make_model(folder);
  const Checkpoint checkpoint(folder);
  const Json config = load_json(folder / "config.json");
  OrderedJson report = {{"folder", folder.string()},
                        {"model_type", config.value("model_type", "")}};
  for (const char* part : {"vision_config", "text_config", "llm_config"}) {
    if (config.contains(part)) report[part] = shape_of(config[part]);
  }
  if (!config.contains("text_config") && !config.contains("llm_config")) report["text_config"] = shape_of(config);

  std::map<std::string, std::int64_t> parts, dtypes;
  std::int64_t total = 0;
  for (const auto& [name, parameter] : model->weights()) {
    parts[part_of(*model, name)] += parameter.numel();
    total += parameter.numel();
  }
  for (const std::string& key : checkpoint.keys()) {
    ++dtypes[dtype_text(checkpoint.entry(key).dtype)];
  }
  parts["total"] = total;
  report["parameters"] = parts;
  report["tensors_stored"] = dtypes;

  const KvCacheShape cache = model->cache_shape();
  const double cached =
      2.0 * double(cache.layers) * double(cache.kv_heads) * double(cache.head_dim);
  report["weights_mb"] = {{"float32", megabytes(4.0 * double(total))},
                          {"bfloat16", megabytes(2.0 * double(total))}};
  report["cache_of_1000_tokens_mb"] = {{"float32", megabytes(4.0 * 1000 * cached)},
                                       {"bfloat16", megabytes(2.0 * 1000 * cached)}};
  report["full_training_state_mb"] = {{"float32", megabytes(16.0 * double(total))}};
  report["longest_context_tokens"] = model->max_positions();
  return report;
}

}  // namespace vlm::infer
