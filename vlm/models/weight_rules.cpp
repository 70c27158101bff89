#include "vlm/models/weight_rules.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <set>

namespace vlm {
namespace {

constexpr const char* kTrainingScheme = "NF4";

// The formats of a dtype. What one can't hold goes into 8 bits.
struct FormatScheme {
  const char* dtype;
  const char* text;    // of the text model's layers
  const char* others;  // of the other parts'
  const char* head;    // of the output head; null: it isn't quantized
};

constexpr const char* kFallback = "int8";

constexpr std::array<FormatScheme, 3> kSchemes = {{
    {"int8", "int8", "int8", "int8"},
    {"int4", "int4", "int8", "int8"},
    {kTrainingScheme, "NF4", "NF4", nullptr},
}};

const FormatScheme* find_scheme(const std::string& dtype) {
  const auto* found = std::ranges::find_if(
      kSchemes, [&](const FormatScheme& scheme) { return dtype == scheme.dtype; });
  return found == kSchemes.end() ? nullptr : found;
}

// Weights of projections and embeddings: the layers that take bfloat16 beside float32.
std::set<std::string> find_matrices(const VisionLanguageModel& model) {
  std::set<std::string> names;
  for (const auto& item : model.module().named_modules()) {
    const auto* module = item.value().get();
    if (dynamic_cast<const Linear*>(module) || dynamic_cast<const Embedding*>(module)) {
      names.insert(item.key() + ".weight");
    }
  }
  return names;
}

// Whether a parameter is to stay as it is: one of a module that is trained, or tied to one.
bool is_trained(const VisionLanguageModel& model, const LoadOptions& options,
                const std::string& parameter) {
  if (!options.is_trained) return false;
  const auto asks = [&](const std::string& name) {
    return options.is_trained(name) || options.is_trained(name.substr(0, name.rfind('.')));
  };
  if (asks(parameter)) return true;
  for (const auto& [name, source] : model.tied_weights()) {
    if (parameter == name && asks(source)) return true;
    if (parameter == source && asks(name)) return true;
  }
  return false;
}

// Makes the rules store matrices in bfloat16 beside everything else in float32.
void mix_while_loading(const VisionLanguageModel& model, const LoadOptions& options,
                       at::ScalarType compute, LoadRules& rules) {
  std::set<std::string> matrices = find_matrices(model);
  std::erase_if(matrices,
                [&](const std::string& name) { return is_trained(model, options, name); });
  rules.dtype = at::kFloat;
  (compute == at::kBFloat16 ? rules.narrowed : rules.kept_bfloat16) = std::move(matrices);
}

// Makes the rules leave what is trained in float32 beside a bfloat16 base.
void widen_trained(const VisionLanguageModel& model, const LoadOptions& options, LoadRules& rules) {
  for (const auto& item : model.module().named_parameters()) {
    if (!is_trained(model, options, item.key())) rules.narrowed.insert(item.key());
  }
  rules.dtype = at::kFloat;
}

// Makes the rules store the layers in their formats while they are read.
void store_while_loading(std::map<std::string, LayerFormat> formats, LoadRules& rules) {
  rules.store_quantized = [formats = std::move(formats), device = rules.device](
                              const std::string& name, const at::Tensor& value) {
    const auto found = formats.find(name);
    if (found == formats.end()) return false;
    const LayerFormat& chosen = found->second;
    chosen.layer->store(chosen.format->store(value.to(device)));
    return true;
  };
}

// The base of an adapter's training: beside NF4, matrices that aren't trained become bfloat16.
void store_nf4_while_loading(const VisionLanguageModel& model, const LoadOptions& options,
                             LoadRules& rules) {
  auto formats = choose_formats(model, kTrainingScheme);
  for (const std::string& name : find_matrices(model)) {
    if (is_trained(model, options, name)) {
      formats.erase(name);
    } else if (!formats.count(name) && !name.ends_with("position_embedding.weight")) {
      // A position embedding is added to, not looked up alone, and is small.
      rules.narrowed.insert(name);
    }
  }
  store_while_loading(std::move(formats), rules);
}

// Of the linear layers, by the names of their weights.
std::map<std::string, std::shared_ptr<Linear>> find_linears(const VisionLanguageModel& model) {
  std::map<std::string, std::shared_ptr<Linear>> found;
  for (const auto& item : model.module().named_modules()) {
    const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
    if (linear) found[item.key() + ".weight"] = linear;
  }
  return found;
}

}  // namespace

bool is_quantizing(const std::string& dtype) {
  return dtype != kTrainingScheme && find_scheme(dtype) != nullptr;
}

std::map<std::string, LayerFormat> choose_formats(const VisionLanguageModel& model,
                                                  const std::string& dtype) {
  const FormatScheme* scheme = find_scheme(dtype);
  TORCH_CHECK(scheme, "dtype ", dtype, " has no formats");
  const std::string text = model.parts().at("text_model") + ".";
  std::map<std::string, LayerFormat> chosen;
  for (const auto& item : model.module().named_modules()) {
    const std::string& name = item.key();
    const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
    if (!linear) continue;
    const char* wanted = linear.get() == &model.output_head() ? scheme->head
                         : name.starts_with(text)             ? scheme->text
                                                              : scheme->others;
    if (!wanted) continue;
    for (const char* format_name : {wanted, kFallback}) {
      const WeightFormat& format = find_weight_format(format_name);
      if (!format.fits(linear->out_features(), linear->in_features())) continue;
      chosen[name + ".weight"] = {linear, &format};
      break;
    }
  }
  return chosen;
}

void fill_rules(const VisionLanguageModel& model, const LoadOptions& options,
                at::ScalarType compute, LoadRules& rules) {
  const bool is_mixed = options.mixed_precision && options.device.is_cpu();
  if (is_mixed) mix_while_loading(model, options, compute, rules);
  if (options.is_trained && !is_mixed && !options.device.is_cpu() && rules.dtype == at::kBFloat16) {
    widen_trained(model, options, rules);
  }
  if (options.quantize_nf4) store_nf4_while_loading(model, options, rules);
  if (is_quantizing(options.dtype)) {
    TORCH_CHECK(is_mixed, options.dtype, " is for running models on a CPU");
    store_while_loading(choose_formats(model, options.dtype), rules);
  }
}

void keep_codes(const VisionLanguageModel& model, const LoadOptions& options,
                const CodedTensors& files, LoadRules& rules) {
  const bool is_quantized = is_quantizing(options.dtype);
  if (!is_quantized && options.dtype != "auto") return;
  std::map<std::string, LayerFormat> formats;
  if (is_quantized) formats = choose_formats(model, options.dtype);
  rules.store_codes = [&files, is_quantized, formats = std::move(formats),
                       linears = find_linears(model)](const std::string& name,
                                                      const std::string& key) {
    const auto layer = linears.find(name);
    const std::string format = files.format(key);
    if (layer == linears.end() || format.empty()) return false;
    const auto wanted = formats.find(name);
    if (is_quantized && (wanted == formats.end() || format != wanted->second.format->name)) {
      return false;
    }
    layer->second->store(files.stored(key));
    return true;
  };
}

void store_tied_head(VisionLanguageModel& model, const CodedTensors& files) {
  std::map<std::string, std::shared_ptr<Linear>> linears = find_linears(model);
  for (const auto& [head, embedding] : model.tied_weights()) {
    const auto found = linears.find(head);
    if (found == linears.end() || found->second->is_quantized()) continue;
    for (const std::string& key : files.keys()) {
      if (model.canonical_key(key) != embedding || files.format(key).empty()) continue;
      found->second->store(find_weight_format(kFallback).store(found->second->dense_weight()));
    }
  }
}

}  // namespace vlm
