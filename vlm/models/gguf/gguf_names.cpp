#include "vlm/models/gguf/gguf_names.h"

#include <array>
#include <span>
#include <utility>

namespace vlm {
namespace {

struct NamePair {
  const char* gguf;
  const char* key;
};

constexpr std::array<NamePair, 2> kText = {{
    {"token_embd.weight", "embed_tokens.weight"},
    {"output_norm.weight", "norm.weight"},
}};
constexpr const char* kHead = "output.weight";
constexpr const char* kHeadKey = "lm_head.weight";

// Without ".weight" and ".bias".
constexpr std::array<NamePair, 11> kTextLayer = {{
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};

constexpr std::array<NamePair, 6> kVision = {{
    {"v.patch_embd.weight", "model.vision_model.embeddings.patch_embedding.weight"},
    {"v.patch_embd.bias", "model.vision_model.embeddings.patch_embedding.bias"},
    {"v.position_embd.weight", "model.vision_model.embeddings.position_embedding.weight"},
    {"v.post_ln.weight", "model.vision_model.post_layernorm.weight"},
    {"v.post_ln.bias", "model.vision_model.post_layernorm.bias"},
    {"mm.model.fc.weight", "model.connector.modality_projection.proj.weight"},
}};
constexpr std::array<NamePair, 8> kVisionLayer = {{
    {"ln1", "layer_norm1"},
    {"ln2", "layer_norm2"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_out", "self_attn.out_proj"},
    {"ffn_up", "mlp.fc1"},
    {"ffn_down", "mlp.fc2"},
}};

using Column = const char* NamePair::*;

std::optional<std::string> translate(std::span<const NamePair> table, const std::string& name,
                                     Column from, Column to) {
  for (const NamePair& pair : table) {
    if (name == pair.*from) return pair.*to;
  }
  return std::nullopt;
}

// A layer's name: `begin`, a number, a point, a name of the table, and ".weight" or ".bias".
struct LayerTable {
  std::string begin_from, begin_to;
  std::span<const NamePair> table;
  Column from, to;

  std::optional<std::string> translate_name(const std::string& name) const {
    if (!name.starts_with(begin_from)) return std::nullopt;
    const std::string rest = name.substr(begin_from.size());
    const std::size_t point = rest.find('.'), last = rest.rfind('.');
    if (point == 0 || point == std::string::npos || last == point) return std::nullopt;
    if (rest.find_first_not_of("0123456789") != point) return std::nullopt;
    const auto found = translate(table, rest.substr(point + 1, last - point - 1), from, to);
    if (!found) return std::nullopt;
    return begin_to + rest.substr(0, point + 1) + *found + rest.substr(last);
  }
};

constexpr Column kGguf = &NamePair::gguf, kKey = &NamePair::key;
constexpr const char* kVisionLayers = "model.vision_model.encoder.layers.";

}  // namespace

std::optional<std::string> gguf_text_key(const std::string& name, const std::string& prefix) {
  if (name == kHead) return kHeadKey;
  if (const auto key = translate(kText, name, kGguf, kKey)) return prefix + *key;
  return LayerTable{"blk.", prefix + "layers.", kTextLayer, kGguf, kKey}.translate_name(name);
}

std::optional<std::string> gguf_text_name(const std::string& key, const std::string& prefix) {
  if (key == kHeadKey) return kHead;
  if (!key.starts_with(prefix)) return std::nullopt;
  if (const auto name = translate(kText, key.substr(prefix.size()), kKey, kGguf)) return name;
  return LayerTable{prefix + "layers.", "blk.", kTextLayer, kKey, kGguf}.translate_name(key);
}

std::optional<std::string> gguf_vision_key(const std::string& name, bool is_swapped) {
  if (const auto key = translate(kVision, name, kGguf, kKey)) return key;
  auto key = LayerTable{"v.blk.", kVisionLayers, kVisionLayer, kGguf, kKey}.translate_name(name);
  if (!key || !is_swapped) return key;
  if (const std::size_t at = key->find(".mlp.fc"); at != std::string::npos) {
    char& number = (*key)[at + std::string(".mlp.fc").size()];
    number = number == '1' ? '2' : '1';
  }
  return key;
}

std::optional<std::string> gguf_vision_name(const std::string& key) {
  if (const auto name = translate(kVision, key, kKey, kGguf)) return name;
  return LayerTable{kVisionLayers, "v.blk.", kVisionLayer, kKey, kGguf}.translate_name(key);
}

}  // namespace vlm
