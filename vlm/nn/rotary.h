// Rotary position embedding, half-split ("NeoX") pairs as in Llama.
//
//   positions [B, T] or [3, B, T] ─► cos, sin [B, 1, T, R] ─► rotated q, k [B, H, T, D]
//
// The first R of a head's D numbers are rotated, the others pass. Angles are float32 whatever the
// model's dtype; cos and sin are cast to it. Reference: ROPE_INIT_FUNCTIONS and
// LlamaRotaryEmbedding, transformers 5.23; for sections Qwen2-VL's and Qwen3-VL's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

struct RotarySettings {
  enum class Kind { kDefault, kLinear, kLlama3, kLongRope } kind = Kind::kDefault;
  std::int64_t dims = 0;  // R, even
  double theta = 10000;
  double factor = 1;           // kLinear and kLlama3: frequencies are divided by it
  double low_freq_factor = 1;  // kLlama3: of waves longer than original_positions / this
  double high_freq_factor = 4;
  std::int64_t original_positions = 0;            // kLlama3, kLongRope
  std::vector<double> short_factor, long_factor;  // kLongRope, R / 2 each
  double attention_factor = 1;                    // on cos and sin
  // How many of the R / 2 frequencies turn by time, row and column, for positions of three rows:
  // one after the other, or interleaved (time, row, column, time, …).
  std::vector<std::int64_t> sections = {};
  bool are_sections_interleaved = false;
};

struct RotaryTable {
  at::Tensor cos, sin;  // [B, 1, T, R]
};

class Rotary {
 public:
  explicit Rotary(const RotarySettings& settings);

  // `is_long` [B or 1, T or 1] bool: which tokens belong to sequences of more than
  // original_positions tokens. For LongRoPE, which then turns all tokens of the sequence by other
  // frequencies; undefined: none.
  RotaryTable make_table(const at::Tensor& positions, at::ScalarType dtype,
                         const at::Tensor& is_long = {}) const;

  // The length beyond which a sequence's tokens turn otherwise; 0: there is none.
  std::int64_t switch_length() const;

 private:
  at::Tensor frequencies_on(at::Device device, const at::Tensor& is_long) const;

  RotarySettings settings_;
  // Each frequency twice, for both halves.
  at::Tensor short_, long_;       // [R] float32; undefined: as the short ones
  at::Tensor axes_;               // [R] int64, the row of positions that each frequency turns by
  mutable at::Tensor on_device_;  // short_, long_ one below the other, where they were asked for
};

// q · cos + rotate_half(q) · sin. In float32 on a CPU this takes one pass over q, forward and
// backward; on a GPU three operators.
at::Tensor apply_rotary(const at::Tensor& q, const RotaryTable& table);

}  // namespace vlm
