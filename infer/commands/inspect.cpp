#include "infer/commands/inspect.h"

#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/io/checkpoint.h"
#include "vlm/io/hub/hub_pull.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

std::string megabytes(double bytes) {
  return fixed_text(bytes / 1e6, 1) + " MB";
}

// "model.text_model.layers.0.…" → "text_model"
std::string part_of(const std::string& parameter) {
  std::string name = parameter.starts_with("model.") ? parameter.substr(6) : parameter;
  return name.substr(0, name.find('.'));
}

class Report {
 public:
  void line(const std::string& label, const std::string& value) {
    out_ << std::left << std::setw(34) << label << value << "\n";
  }
  void line(const std::string& label, std::int64_t value) { line(label, concat(value)); }
  std::string text() const { return out_.str(); }

 private:
  PlainStream out_;
};

void report_config(const Json& config, const char* part, Report& report) {
  if (!config.contains(part)) return;
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "image_size", "patch_size", "vocab_size"}) {
    if (config[part].contains(key)) report.line(concat(part, ".", key), config[part][key].dump());
  }
}

}  // namespace

std::string inspect_model(const std::string& model_name) {
  const auto folder = find_or_pull_model(model_name);
  const ModelPtr model = make_model(folder);
  const Checkpoint checkpoint(folder);
  Report report;
  report.line("folder", folder.string());
  const Json config = load_json(folder / "config.json");
  report.line("model_type", config.value("model_type", ""));
  report_config(config, "vision_config", report);
  report_config(config, "text_config", report);

  std::map<std::string, std::int64_t> parts, dtypes;
  std::int64_t total = 0;
  for (const auto& [name, parameter] : model->weights()) {
    parts[part_of(name)] += parameter.numel();
    total += parameter.numel();
  }
  for (const std::string& key : checkpoint.keys())
    ++dtypes[dtype_text(checkpoint.entry(key).dtype)];
  for (const auto& [part, count] : parts) report.line("parameters " + part, count);
  report.line("parameters", total);
  for (const auto& [dtype, count] : dtypes) report.line("tensors stored as " + dtype, count);

  const KvCacheShape cache = model->cache_shape();
  const double cached =
      2.0 * double(cache.layers) * double(cache.kv_heads) * double(cache.head_dim);
  report.line("weights in float32", megabytes(4.0 * double(total)));
  report.line("weights in bfloat16", megabytes(2.0 * double(total)));
  report.line("KV cache of 1000 tokens, float32", megabytes(4.0 * 1000 * cached));
  report.line("KV cache of 1000 tokens, bfloat16", megabytes(2.0 * 1000 * cached));
  report.line("full training state, float32", megabytes(16.0 * double(total)));
  report.line("longest context in tokens", model->max_positions());
  return report.text();
}

}  // namespace vlm::infer
