// The part of a config.json that describes a decoder: a text model's root, a text_config, or an
// llm_config.
//
// model_type says which of the four this is: llama (also Llama 3, SmolLM2), qwen2 (biases of q, k
// and v), qwen3 (q and k normalised head by head) or phi3 (projections in one matrix, rotation of a
// part of each head). Inside InternVL it may also be internlm2: Llama's arithmetic, with other
// names of modules, and q, k and v in one matrix, head group by head group. What a file leaves out
// has the defaults of that class in transformers 5.23. Both spellings of the rotation are read:
// rope_theta with rope_scaling, and rope_parameters.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vlm/core/config/fields.h"
#include "vlm/nn/rotary.h"

namespace vlm {

struct DecoderConfig {
  std::string model_type = "llama";
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::optional<std::int64_t> num_key_value_heads;  // null: as many as heads
  std::optional<std::int64_t> head_dim;             // null: hidden_size / heads
  std::int64_t max_position_embeddings = 2048;
  std::string hidden_act = "silu";
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  double initializer_range = 0.02;
  bool attention_bias = false;
  bool mlp_bias = false;
  RotarySettings rope;  // filled by complete

  // The defaults of the class that `json` (an object, or null where the part is absent) names.
  // Throws Error naming `where` for a model_type that isn't one of the four.
  static DecoderConfig defaults_for(const Json* json, const std::string& where);

  Fields fields();
  // After the fields were read from `json`: reads the rotation, and checks everything. Throws Error
  // naming `where` and the key for what can't work or isn't supported.
  void complete(const Json& json, const std::string& where);

  std::int64_t kv_heads() const { return num_key_value_heads.value_or(num_attention_heads); }
  std::int64_t head_size() const {
    return head_dim.value_or(hidden_size / std::max<std::int64_t>(num_attention_heads, 1));
  }
  bool has_input_biases() const;  // of q, k and v
  bool has_output_bias() const;   // of o
  bool has_mlp_biases() const { return model_type == "llama" && mlp_bias; }
  bool has_head_norms() const { return model_type == "qwen3"; }
  bool is_internlm2() const { return model_type == "internlm2"; }
  bool is_fused() const { return model_type == "phi3"; }  // qkv_proj, gate_up_proj
};

// The model_types that a DecoderConfig can have.
const std::vector<std::string>& decoder_types();

}  // namespace vlm
