// What the graph of InternVL is built from, and config.json in the layout of transformers
// (`internvl`, repositories that end in "-hf"); internvl_chat_config.h reads the original one.
//
// What a file leaves out has the defaults of InternVLConfig and InternVLVisionConfig in
// transformers 5.23. Variants that no published file has (a mask token, other poolings) are refused
// by the key's name.
#pragma once

#include <cstdint>
#include <string>

#include "vlm/core/json.h"
#include "vlm/models/decoder/decoder_config.h"

namespace vlm {

// Throws Error naming `where` for a flag that isn't as wanted: the other value isn't supported.
void require_flag(bool value, bool wanted, const std::string& where);

struct InternVitConfig {
  std::int64_t hidden_size = 1024;
  std::int64_t intermediate_size = 4096;
  std::int64_t num_hidden_layers = 24;
  std::int64_t num_attention_heads = 16;
  std::int64_t image_size = 448;
  std::int64_t patch_size = 14;
  bool attention_bias = false;
  double layer_norm_eps = 1e-6;
  bool has_rms_norms = false;  // InternViT-6B
  bool has_qk_norms = false;   // InternViT-6B
  bool is_original = false;    // names of modules; q, k and v in one of them

  std::int64_t grid_side() const { return image_size / patch_size; }
};

struct InternVlConfig {
  std::int64_t image_token_id = 151667;
  std::int64_t scale = 2;  // patches of a token's side, 1 / downsample_ratio
  bool tie_word_embeddings = true;
  InternVitConfig vision_config;
  DecoderConfig text_config;

  // Throws Error naming `where` and the key for values that can't work or aren't supported.
  static InternVlConfig parse(const Json& json, const std::string& where);
};

// What both layouts have to check.
void check_vision(const InternVitConfig& config, const std::string& where);
std::int64_t parse_scale(double downsample_ratio, std::int64_t grid_side, const std::string& where);
void check_connector(const InternVlConfig& config, const std::string& where);

}  // namespace vlm
