#include "vlm/nn/cpu/int8/int8_weight.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "vlm/io/parallel.h"

namespace vlm {
namespace {

constexpr std::int64_t kQuantizedValues = 64 * 1024;  // that a thread quantizes at a time

struct WeightRows {
  const float* values;  // [rows, k]
  std::int64_t rows, k, padded;
};

VLM_CLONES void quantize_rows(const WeightRows& weight, std::uint8_t* codes, float* scales) {
  for (std::int64_t i = 0; i < weight.rows; ++i, codes += weight.padded) {
    scales[i] = quantize_row(weight.values + i * weight.k, weight.k, weight.padded, codes).scale;
  }
}

}  // namespace

const float* wide_values(const at::Tensor& piece) {
  if (piece.scalar_type() == at::kFloat && piece.is_contiguous()) {
    return piece.const_data_ptr<float>();
  }
  thread_local at::Tensor buffer;
  if (!buffer.defined() || buffer.numel() < piece.numel()) {
    buffer = at::empty({piece.numel()}, at::kFloat);
  }
  buffer.narrow(0, 0, piece.numel()).view(piece.sizes()).copy_(piece);
  return buffer.const_data_ptr<float>();
}

Int8Weight quantize_int8(const at::Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2 && weight.is_cpu() && weight.size(1) <= kMostInt8Depth,
              "quantize_int8: weight ", weight.sizes(), " on ", weight.device());
  const std::int64_t n = weight.size(0), k = weight.size(1), padded = round_up(k, kCodesStep);
  Int8Weight stored{.codes = at::empty({n, padded}, at::kByte),
                    .scales = at::empty({n}, at::kFloat),
                    .in_features = k};
  const std::int64_t step = std::max<std::int64_t>(kQuantizedValues / padded, 1);
  run_pieces(divide_up(n, step), [&](std::int64_t i) {
    const std::int64_t first = i * step, rows = std::min(step, n - first);
    quantize_rows({wide_values(weight.narrow(0, first, rows)), rows, k, padded},
                  stored.codes.mutable_data_ptr<std::uint8_t>() + first * padded,
                  stored.scales.mutable_data_ptr<float>() + first);
  });
  return stored;
}

at::Tensor dequantize_int8(const Int8Weight& stored) {
  return stored.codes.narrow(1, 0, stored.in_features)
      .to(at::kFloat)
      .sub_(128)
      .mul_(stored.scales.unsqueeze(1));
}

}  // namespace vlm
