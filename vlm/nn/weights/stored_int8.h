// A weight in 8 bits with a scale a row (cpu/int8/int8_weight.h).
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "vlm/nn/cpu/int8/int8_linear.h"
#include "vlm/nn/cpu/int8/int8_weight.h"
#include "vlm/nn/weights/stored_codes.h"

namespace vlm {

struct Int8Format {
  using Weight = Int8Weight;
  using Map = Int8Map;
  static constexpr const char* kName = "int8";
  static constexpr int kBits = 8;

  static std::vector<std::pair<const char*, at::Tensor>> tensors(const Int8Weight& weight) {
    return {{"codes", weight.codes}, {"scales", weight.scales}};
  }
  static at::Tensor dequantize(const Int8Weight& weight) { return dequantize_int8(weight); }
  static std::optional<Int8Weight> rows(const Int8Weight& weight, std::int64_t first,
                                        std::int64_t count) {
    return Int8Weight{.codes = weight.codes.narrow(0, first, count),
                      .scales = weight.scales.narrow(0, first, count),
                      .in_features = weight.in_features};
  }
  static std::vector<at::Tensor> multiply(const at::Tensor& x, const std::vector<Int8Map>& maps) {
    return int8_linears(x, maps);
  }
  static bool fills_panels(const at::Tensor& rows) { return fills_int8_panels(rows); }
  static at::Tensor panel_gelu(const at::Tensor& rows, const Int8Map& map, Gelu kind) {
    return int8_panel_gelu(rows, map, kind);
  }
  static at::Tensor panel_gated(const at::Tensor& rows, const Int8Map& gate, const Int8Map& up) {
    return int8_panel_gated(rows, gate, up);
  }
  static at::ScalarType activation_dtype() { return has_int8_products() ? at::kChar : at::kFloat; }
};

using StoredInt8 = StoredCodes<Int8Format>;

}  // namespace vlm
