// Rotary position embedding, half-split ("NeoX") pairs as in Llama.
//
//   positions [B, T] ─► cos, sin [B, 1, T, D] ─► rotated q, k [B, H, T, D]
//
// Angles are float32 whatever the model's dtype; cos and sin are cast to it. Reference:
// LlamaRotaryEmbedding, "default".
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vlm {

struct RotaryTable {
  at::Tensor cos, sin;  // [B, 1, T, D]
};

RotaryTable make_rotary_table(const at::Tensor& positions, std::int64_t head_dim, double theta,
                              at::ScalarType dtype);

// q · cos + rotate_half(q) · sin. In float32 on a CPU this takes one pass over q, forward and
// backward; on a GPU three operators.
at::Tensor apply_rotary(const at::Tensor& q, const RotaryTable& table);

}  // namespace vlm
