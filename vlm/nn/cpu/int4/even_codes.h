// Codes of 4 bits at even levels, with scales that are searched for: for checkpoints that are
// written once and read often.
//
//   weight [N, K], importance [K] ─► search_even_codes ─► EvenCodes: W ≈ scale · (code − 8)
//
// Nineteen scales around that which makes the value of largest magnitude the lowest level are
// tried; each is fitted to the codes that it gives by least squares, weighted by the importance of
// inputs, and the best is taken. Scales are numbers of bfloat16, so that programs which hold them
// in 16 bits of either kind compute with the same ones. Reference: make_qx_quants of ggml, October
// 2026.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

struct EvenCodes {
  at::Tensor codes;   // [N, K] uint8, 0 to 15
  at::Tensor scales;  // [N, K / 32] float32, may be negative
};

// K is a multiple of 32. `importance` undefined: all inputs are alike.
EvenCodes search_even_codes(const at::Tensor& weight, const at::Tensor& importance);

// [N, K] float32
at::Tensor dequantize_even(const EvenCodes& coded);

}  // namespace vlm
