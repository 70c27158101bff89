#include "vlm/models/registry.h"

#include <array>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/io/convert.h"
#include "vlm/models/internvl/internvl.h"
#include "vlm/models/internvl/internvl_chat_processor.h"
#include "vlm/models/internvl/internvl_processor.h"
#include "vlm/models/model_files.h"
#include "vlm/models/qwen_vl/qwen_vl.h"
#include "vlm/models/qwen_vl/qwen_vl_processor.h"
#include "vlm/models/smolvlm/smolvlm.h"
#include "vlm/models/smolvlm/smolvlm_processor.h"
#include "vlm/models/text/text_model.h"
#include "vlm/models/text/text_processor.h"
#include "vlm/models/weight_files.h"
#include "vlm/models/weight_rules.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

struct Family {
  const char* model_type;
  ModelPtr (*make)(const Json& config, const fs::path& path);  // the path of config.json
  std::unique_ptr<Processor> (*make_processor)(const fs::path& folder,
                                               const TemplateOptions& options);
  // Null where the files say what ends an answer.
  std::vector<std::int64_t> (*find_answer_end)(const fs::path& folder) = nullptr;
};

template <typename Model, typename Config>
ModelPtr make(const Json& config, const fs::path& path) {
  return std::make_shared<Model>(Config::parse(config, path.string()));
}

ModelPtr make_internvl_chat(const Json&, const fs::path& path) {
  return std::make_shared<InternVl>(load_chat_config(path.parent_path()).model);
}

template <typename FamilyProcessor>
std::unique_ptr<Processor> make_processor(const fs::path& folder, const TemplateOptions& options) {
  return std::make_unique<FamilyProcessor>(folder, options);
}

constexpr auto make_smolvlm = make<SmolVlm, SmolVlmConfig>;
constexpr auto make_text_model = make<TextModel, TextModelConfig>;
constexpr auto make_qwen_vl = make<QwenVl, QwenVlConfig>;

constexpr std::array<Family, 11> kFamilies = {{
    {"smolvlm", make_smolvlm, make_processor<SmolVlmProcessor>},
    {"idefics3", make_smolvlm, make_processor<SmolVlmProcessor>},
    {"llama", make_text_model, make_processor<TextProcessor>},
    {"qwen2", make_text_model, make_processor<TextProcessor>},
    {"qwen3", make_text_model, make_processor<TextProcessor>},
    {"phi3", make_text_model, make_processor<TextProcessor>},
    {"qwen2_vl", make_qwen_vl, make_processor<QwenVlProcessor>},
    {"qwen2_5_vl", make_qwen_vl, make_processor<QwenVlProcessor>},
    {"qwen3_vl", make_qwen_vl, make_processor<QwenVlProcessor>},
    {"internvl", make<InternVl, InternVlConfig>, make_processor<InternVlProcessor>},
    {"internvl_chat", make_internvl_chat, make_processor<InternVlChatProcessor>, find_answer_end},
}};

std::string string_at(const Json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return json.is_object() && found != json.end() && found->is_string() ? found->get<std::string>()
                                                                       : "";
}

// What config.json says the weights are stored in; transformers 5 writes "dtype", earlier versions
// "torch_dtype".
at::ScalarType stored_dtype(const Json& config) {
  std::string name = string_at(config, "dtype");
  if (name.empty()) name = string_at(config, "torch_dtype");
  if (name == "bfloat16") return at::kBFloat16;
  return name == "float16" ? at::kHalf : at::kFloat;
}

at::ScalarType choose_dtype(const Json& config, const LoadOptions& options) {
  if (options.dtype == "float32" || is_quantizing(options.dtype)) return at::kFloat;
  if (options.dtype == "bfloat16") return at::kBFloat16;
  if (options.dtype == "stored") return stored_dtype(config);
  TORCH_CHECK(options.dtype == "auto", "unknown dtype ", options.dtype);
  const bool is_wide = options.device.is_cpu() || stored_dtype(config) == at::kFloat;
  return is_wide ? at::kFloat : at::kBFloat16;
}

at::ScalarType choose_compute_dtype(const Json& config, const LoadOptions& options) {
  const bool is_bfloat16 =
      options.dtype == "bfloat16" || is_quantizing(options.dtype) ||
      (options.dtype == "auto" && stored_dtype(config) == at::kBFloat16 && has_bfloat16_products());
  return is_bfloat16 ? at::kBFloat16 : at::kFloat;
}

// Says at every level of a config that head and embeddings are two weights.
void part_weights(OrderedJson& config) {
  if (!config.is_object()) return;
  for (auto& [key, value] : config.items()) {
    if (key == "tie_word_embeddings") value = false;
    part_weights(value);
  }
}

}  // namespace

OrderedJson make_saved_config(const fs::path& source, at::ScalarType dtype, bool is_tied) {
  OrderedJson config = load_ordered_json(source / "config.json");
  if (!is_tied) {
    part_weights(config);
    config["tie_word_embeddings"] = false;
  }
  const std::string name = dtype == at::kFloat  ? "float32"
                           : dtype == at::kHalf ? "float16"
                                                : "bfloat16";
  config.erase("torch_dtype");
  // What is written are numbers.
  for (const char* key : {"quantization_config", "compression_config"}) config.erase(key);
  config["dtype"] = name;
  return config;
}

namespace {

// Has frozen narrow matrices multiplied in bfloat16.
void use_bfloat16_products(VisionLanguageModel& model) {
  model.product_dtype = at::kBFloat16;
  for (const auto& module : model.module().modules()) {
    const auto linear = std::dynamic_pointer_cast<Linear>(module);
    if (linear) linear->product_dtype = at::kBFloat16;
  }
}

// The row of the table that config.json names.
const Family& find_family(const Json& config, const fs::path& path) {
  const std::string type = string_at(config, "model_type");
  std::vector<std::string> known;
  for (const Family& family : kFamilies) {
    if (type == family.model_type) return family;
    known.emplace_back(family.model_type);
  }
  throw Error({.what = "unsupported model_type",
               .where = path.string(),
               .got = type.empty() ? "none" : concat("'", type, "'"),
               .wanted = join(known)});
}

}  // namespace

ModelPtr make_model(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  const Json config = load_json(path);
  return find_family(config, path).make(config, path);
}

std::unique_ptr<Processor> load_processor(const fs::path& folder, const TemplateOptions& options) {
  const fs::path path = folder / "config.json";
  return find_family(load_json(path), path).make_processor(folder, options);
}

std::vector<std::int64_t> answer_ends(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  const std::string type = fs::exists(path) ? string_at(load_json(path), "model_type") : "";
  for (const Family& family : kFamilies) {
    if (type == family.model_type && family.find_answer_end) return family.find_answer_end(folder);
  }
  return {};
}

ModelPtr load_model(const fs::path& folder, const LoadOptions& options) {
  ModelPtr model = make_model(folder);
  LoadRules rules;
  rules.rename = [&](const std::string& key) { return model->canonical_key(key); };
  rules.is_ignorable = [](const std::string& key) {
    return key.ends_with(".position_ids") || key.ends_with(".inv_freq");
  };
  rules.tied = model->tied_weights();
  const Json config = load_json(folder / "config.json");
  rules.dtype = choose_dtype(config, options);
  rules.device = options.device;
  const bool is_mixed = options.mixed_precision && options.device.is_cpu();
  const at::ScalarType compute = choose_compute_dtype(config, options);
  fill_rules(*model, options, compute, rules);
  const std::unique_ptr<TensorSource> source = open_weights(folder);
  const auto* coded = dynamic_cast<const CodedTensors*>(source.get());
  const bool keeps_codes = coded && options.keeps_codes && is_mixed;
  if (keeps_codes) keep_codes(*model, options, *coded, rules);
  NamedTensors parameters;
  for (auto& item : model->module().named_parameters())
    parameters.emplace_back(item.key(), item.value());
  load_weights(parameters, *source, rules);
  // A head that takes the embeddings' weight.
  if (is_quantizing(options.dtype)) store_weights(*model, options.dtype);
  if (keeps_codes && options.dtype == "auto") store_tied_head(*model, *coded);
  model->tie_weights();
  if (is_mixed && compute == at::kBFloat16 && has_bfloat16_products()) {
    use_bfloat16_products(*model);
    log_debug("matrices are multiplied in bfloat16");
  }
  model->module().eval();
  return model;
}

void store_weights(VisionLanguageModel& model, const std::string& dtype) {
  for (const auto& [name, chosen] : choose_formats(model, dtype)) {
    if (chosen.layer->is_quantized()) continue;
    const at::Tensor wide = chosen.layer->dense_weight();
    chosen.layer->store(chosen.format->store(wide));
    drop_unchanged_pages({{name, wide}});
  }
}

at::ScalarType compute_dtype(const fs::path& folder, const LoadOptions& options) {
  return choose_compute_dtype(load_json(folder / "config.json"), options);
}

// config.json comes last, so that a save that was cut off is no checkpoint.
void save_model(const VisionLanguageModel& model, const fs::path& source, const fs::path& folder) {
  make_folders(folder);
  NamedTensors weights = model.weights();
  for (auto& [name, weight] : weights) name = model.published_key(name);
  save_weights(folder, weights);
  copy_side_files(source, folder);
  const OrderedJson config =
      make_saved_config(source, model.dtype(), !model.tied_weights().empty());
  save_text(folder / "config.json", config.dump(2) + "\n");
}

void copy_side_files(const fs::path& source, const fs::path& folder) {
  if (fs::equivalent(source, folder)) return;
  for (const auto& entry : fs::directory_iterator(source)) {
    const bool is_copied = entry.is_regular_file() && is_side_file(entry.path()) &&
                           entry.path().filename() != "config.json";
    if (is_copied) save_text(folder / entry.path().filename(), load_text(entry.path()));
  }
}

}  // namespace vlm
