// A weight in 4 bits with a scale for each 32 inputs (cpu/int4/int4_weight.h).
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "vlm/nn/cpu/int4/int4_linear.h"
#include "vlm/nn/cpu/int4/int4_weight.h"
#include "vlm/nn/weights/stored_codes.h"

namespace vlm {

struct Int4Format {
  using Weight = Int4Weight;
  using Map = Int4Map;
  static constexpr const char* kName = "int4";
  static constexpr int kBits = 4;

  static std::vector<std::pair<const char*, at::Tensor>> tensors(const Int4Weight& weight) {
    return {{"blocks", weight.blocks}, {"row_scales", weight.row_scales}};
  }
  static at::Tensor dequantize(const Int4Weight& weight) { return dequantize_int4(weight); }
  static std::optional<Int4Weight> rows(const Int4Weight& weight, std::int64_t first,
                                        std::int64_t count) {
    if (first % kInt4Outputs != 0 || count % kInt4Outputs != 0) return std::nullopt;
    return Int4Weight{.blocks = weight.blocks.narrow(0, first / kInt4Outputs, count / kInt4Outputs),
                      .row_scales = weight.row_scales.narrow(0, first, count),
                      .levels = weight.levels};
  }
  static std::vector<at::Tensor> multiply(const at::Tensor& x, const std::vector<Int4Map>& maps) {
    return int4_linears(x, maps);
  }
  static bool fills_panels(const at::Tensor& rows) { return fills_int4_panels(rows); }
  static at::Tensor panel_gelu(const at::Tensor& rows, const Int4Map& map, Gelu kind) {
    return int4_panel_gelu(rows, map, kind);
  }
  static at::Tensor panel_gated(const at::Tensor& rows, const Int4Map& gate, const Int4Map& up) {
    return int4_panel_gated(rows, gate, up);
  }
  static at::ScalarType activation_dtype() { return at::kChar; }
};

using StoredInt4 = StoredCodes<Int4Format>;

}  // namespace vlm
