#include "infer/commands/inspect.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/registry.h"
#include "vlm/models/weight_files.h"
#include "vlm/models/weight_rules.h"

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

// "model.layers.12.mlp.…" → "model.layers.*.mlp.…"
std::string without_numbers(const std::string& name) {
  std::string result;
  for (const char c : name) {
    const bool is_digit = c >= '0' && c <= '9', is_first = result.empty() || result.back() == '.';
    if (!is_digit || !(is_first || result.back() == '*')) {
      result += c;
    } else if (is_first) {
      result += '*';
    }
  }
  return result;
}

// Bytes of the weights with a dtype that quantizes; `wider` gets the text model's matrices that
// take more bits than its others.
double quantized_bytes(const VisionLanguageModel& model, const std::string& dtype,
                       std::set<std::string>& wider) {
  const auto formats = choose_formats(model, dtype);
  double bytes = 0;
  for (const auto& [name, chosen] : formats) {
    bytes += chosen.format->nbytes(chosen.layer->out_features(), chosen.layer->in_features());
    const bool is_wider = part_of(model, name) == "text_model" && chosen.format->name != dtype;
    if (is_wider) wider.insert(without_numbers(name));
  }
  for (const auto& [name, weight] : model.weights()) {
    if (formats.count(name)) continue;
    const double width = weight.dim() == 2 ? 2 : 4;  // embeddings are bfloat16
    bytes += width * static_cast<double>(weight.numel());
  }
  return bytes;
}

}  // namespace

OrderedJson inspect_model(const std::string& model_name) {
  const auto folder = find_model_folder(model_name);
  const ModelPtr model = make_model(folder);
  const std::unique_ptr<TensorSource> source = open_weights(folder);
  const Json config = load_json(folder / "config.json");
  OrderedJson report = {{"folder", folder.string()},
                        {"model_type", config.value("model_type", "")}};
  for (const char* part : {"vision_config", "text_config", "llm_config"}) {
    if (config.contains(part)) report[part] = shape_of(config[part]);
  }
  if (!config.contains("text_config") && !config.contains("llm_config"))
    report["text_config"] = shape_of(config);

  std::map<std::string, std::int64_t> parts, dtypes;
  std::int64_t total = 0;
  for (const auto& [name, parameter] : model->weights()) {
    parts[part_of(*model, name)] += parameter.numel();
    total += parameter.numel();
  }
  for (const std::string& key : source->keys()) ++dtypes[source->stored_as(key)];
  parts["total"] = total;
  report["parameters"] = parts;
  report["tensors_stored"] = dtypes;

  const KvCacheShape cache = model->cache_shape();
  report["weights_mb"] = {{"float32", megabytes(4.0 * double(total))},
                          {"bfloat16", megabytes(2.0 * double(total))}};
  for (const char* dtype : {"int8", "int4"}) {
    std::set<std::string> wider;
    report["weights_mb"][dtype] = megabytes(quantized_bytes(*model, dtype, wider));
    if (!wider.empty()) report[concat("in_8_bits_with_", dtype)] = wider;
  }
  const auto cached = [&](at::ScalarType held) {
    return megabytes(1000.0 * double(kv_token_bytes(cache, held)));
  };
  report["cache_of_1000_tokens_mb"] = {{"float32", cached(at::kFloat)},
                                       {"bfloat16", cached(at::kBFloat16)},
                                       {"int8", cached(at::kChar)}};
  report["full_training_state_mb"] = {{"float32", megabytes(16.0 * double(total))}};
  report["longest_context_tokens"] = model->max_positions();
  return report;
}

}  // namespace vlm::infer
