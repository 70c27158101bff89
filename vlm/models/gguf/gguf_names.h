// Names of tensors in GGUF files ⇄ keys of Hugging Face.
//
//   blk.3.attn_q.weight ⇄ <prefix>layers.3.self_attn.q_proj.weight
//   v.blk.3.attn_q.weight ⇄ model.vision_model.encoder.layers.3.self_attn.q_proj.weight
//
// Reference: convert_hf_to_gguf.py and clip.cpp of llama.cpp, October 2026.
#pragma once

#include <optional>
#include <string>

namespace vlm {

// The key of a text model's tensor, nothing for a name that isn't known. `prefix`: "model." or
// "model.text_model.".
std::optional<std::string> gguf_text_key(const std::string& name, const std::string& prefix);
std::optional<std::string> gguf_text_name(const std::string& key, const std::string& prefix);

// The same for the file beside it, with encoder and connector. `is_swapped`: as older files name
// the two layers of an MLP.
std::optional<std::string> gguf_vision_key(const std::string& name, bool is_swapped);
std::optional<std::string> gguf_vision_name(const std::string& key);

}  // namespace vlm
