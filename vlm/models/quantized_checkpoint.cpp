#include "vlm/models/quantized_checkpoint.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include "vlm/core/durable_file.h"
#include "vlm/core/json.h"
#include "vlm/io/checkpoint.h"
#include "vlm/models/registry.h"
#include "vlm/nn/cpu/int4/int4_weight.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr double kMostRow = 127;

// Up to the next number of bfloat16, so that no code leaves its range.
at::Tensor round_up_to_bfloat16(const at::Tensor& values) {
  const at::Tensor bits = values.contiguous().view(at::kInt);
  return bits.add(0xFFFF).bitwise_and(-0x10000).view(at::kFloat);
}

// Eight codes of a row in 32 bits, the first in the lowest.
at::Tensor pack_words(const at::Tensor& codes) {
  const at::Tensor pairs = codes.view({codes.size(0), -1, 2});
  const at::Tensor bytes = pairs.select(2, 0).bitwise_or(pairs.select(2, 1).bitwise_left_shift(4));
  return bytes.contiguous().view(at::kInt);
}

void add_layer(const std::string& base, const QuantizedLayer& layer, NamedTensors& tensors) {
  if (layer.bits == 4) {
    const at::Tensor& codes = layer.codes.codes;
    tensors.emplace_back(base + "weight_packed", pack_words(codes));
    tensors.emplace_back(base + "weight_scale", layer.codes.scales.to(at::kBFloat16));
    tensors.emplace_back(base + "weight_shape", at::tensor(codes.sizes().vec(), at::kLong));
  } else {
    tensors.emplace_back(base + "weight", layer.rows);
    tensors.emplace_back(base + "weight_scale", layer.scales.to(at::kBFloat16));
  }
}

OrderedJson scheme(int bits, const char* strategy, bool is_dynamic) {
  OrderedJson made = {{"num_bits", bits},           {"type", "int"},
                      {"symmetric", true},          {"strategy", strategy},
                      {"dynamic", is_dynamic},      {"actorder", nullptr},
                      {"block_structure", nullptr}, {"observer_kwargs", OrderedJson::object()}};
  made["group_size"] = std::string(strategy) == "group" ? OrderedJson(kInt4Group) : nullptr;
  made["observer"] = is_dynamic ? OrderedJson(nullptr) : OrderedJson("minmax");
  return made;
}

OrderedJson make_groups(const VisionLanguageModel& model, const QuantizedLayers& layers) {
  OrderedJson groups = OrderedJson::object();
  for (const std::int64_t bits : {4, 8}) {
    OrderedJson targets = OrderedJson::array();
    for (const auto& [name, layer] : layers) {
      const std::string key = model.published_key(name);
      if (layer.bits == bits) targets.push_back(key.substr(0, key.rfind('.')));
    }
    if (targets.empty()) continue;
    OrderedJson group = {{"targets", targets}};
    group["format"] = bits == 4 ? "pack-quantized" : "int-quantized";
    group["weights"] = bits == 4 ? scheme(4, "group", false) : scheme(8, "channel", false);
    group["input_activations"] = bits == 4 ? OrderedJson(nullptr) : scheme(8, "token", true);
    group["output_activations"] = nullptr;
    groups[bits == 4 ? "group_0" : "group_1"] = std::move(group);
  }
  return groups;
}

OrderedJson make_quantization(const VisionLanguageModel& model, const QuantizedLayers& layers) {
  OrderedJson groups = make_groups(model, layers);
  const std::string format =
      groups.size() > 1 ? "mixed-precision" : groups.begin().value()["format"].get<std::string>();
  return {{"quant_method", "compressed-tensors"}, {"format", format},
          {"quantization_status", "compressed"},  {"global_compression_ratio", nullptr},
          {"kv_cache_scheme", nullptr},           {"ignore", OrderedJson::array()},
          {"config_groups", std::move(groups)}};
}

}  // namespace

std::int64_t QuantizedLayer::nbytes() const {
  if (bits == 4) return codes.codes.numel() / 2 + 2 * codes.scales.numel();
  return rows.numel() + 2 * scales.numel();
}

at::Tensor QuantizedLayer::dense() const {
  return bits == 4 ? dequantize_even(codes) : rows.to(at::kFloat).mul_(scales);
}

QuantizedLayer quantize_rows_of(const at::Tensor& weight) {
  const at::Tensor wide = weight.detach().to(at::kFloat);
  const at::Tensor largest = wide.abs().amax(1, /*keepdim=*/true);
  QuantizedLayer layer{.bits = 8, .scales = round_up_to_bfloat16(largest / kMostRow)};
  const at::Tensor step = layer.scales.clamp_min(1e-30);
  layer.rows = (wide / step).round_().clamp_(-kMostRow, kMostRow).to(at::kChar);
  return layer;
}

QuantizedLayer quantize_groups_of(const at::Tensor& weight, const at::Tensor& importance) {
  return {.bits = 4, .codes = search_even_codes(weight.detach(), importance)};
}

// config.json comes last, as in save_model.
void save_quantized(const VisionLanguageModel& model, const QuantizedLayers& layers,
                    const fs::path& source, const fs::path& folder) {
  make_folders(folder);
  NamedTensors tensors;
  for (const auto& [name, layer] : layers) {
    const std::string key = model.published_key(name);
    add_layer(key.substr(0, key.size() - std::string("weight").size()), layer, tensors);
  }
  for (const auto& [name, weight] : model.weights()) {
    if (!layers.count(name)) tensors.emplace_back(model.published_key(name), weight);
  }
  save_weights(folder, tensors);
  copy_side_files(source, folder);
  bool is_tied = !model.tied_weights().empty();
  for (const auto& [head, embedding] : model.tied_weights())
    is_tied = is_tied && !layers.count(head);
  OrderedJson config = make_saved_config(source, model.dtype(), is_tied);
  config["quantization_config"] = make_quantization(model, layers);
  save_text(folder / "config.json", config.dump(2) + "\n");
}

}  // namespace vlm
