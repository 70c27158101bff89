// Numbers stored in 4 or 8 bits, as bitsandbytes (0.50) stores them.
//
//   weight [out, in] ─► quantize_nf4 ─► Nf4Weight, 4.13 bits a value ─► dequantize_nf4 ─► [out, in]
//   values [n] ─► quantize_blockwise ─► a byte a value and a scale a block ─► dequantize_blockwise
//
// A block's scale is its largest magnitude; a value becomes the nearest level of a table, the lower
// of two that are equally near. NF4 has 16 levels, which cut a normal distribution into equal
// shares, and blocks of 64. Its scales are quantized to a byte each too (double quantization):
// their mean is subtracted, and the differences are quantized in blocks of 256. Equal to the bit to
// bitsandbytes' CUDA kernels and its kernels in Python; its own CPU kernel for bytes chooses the
// neighbouring level for 0.2 % of values. Works on any device. References: QLoRA (arXiv
// 2305.14314), 8-bit optimizers (arXiv 2110.02861).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace vlm {

constexpr std::int64_t kNf4Block = 64;         // values that share a scale
constexpr std::int64_t kBlockwiseBlock = 256;  // the same for 8-bit codes

// Levels in rising order, on the device asked for.
at::Tensor nf4_levels(at::Device device);                      // [16] float32
at::Tensor dynamic_levels(bool is_signed, at::Device device);  // [256] float32, −1 or 0 … 1

struct BlockwiseCodes {
  at::Tensor codes;   // [n] uint8
  at::Tensor scales;  // [ceil(n / 256)] float32
};

// `values` may have any shape; they are read in row-major order.
BlockwiseCodes quantize_blockwise(const at::Tensor& values, const at::Tensor& levels);
at::Tensor dequantize_blockwise(const BlockwiseCodes& stored, const at::Tensor& levels);  // [n]

class Nf4Block;

struct Nf4Weight {
  at::Tensor codes;        // [ceil(n / 2)] uint8, the even value in the high half
  BlockwiseCodes absmax;   // scales of the blocks, minus their mean
  at::Tensor absmax_mean;  // float32, []; [blocks of 256, 1] where they differ
  std::vector<std::int64_t> shape;
  // Where the weight lies between others (frozen_linear.h), and the place of its first value there.
  std::shared_ptr<Nf4Block> block = nullptr;
  std::int64_t place = 0;

  std::int64_t nbytes() const;
};

// From float32, bfloat16 or float16. On a CPU it needs a few MB of memory besides the result.
Nf4Weight quantize_nf4(const at::Tensor& weight);
at::Tensor dequantize_nf4(const Nf4Weight& stored, at::ScalarType dtype);

}  // namespace vlm
