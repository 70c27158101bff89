// A weight of integer codes with scales, for running models on a CPU: what its formats share.
//
// `Format` is a struct of static members:
//   Weight, Map                        a weight, and one with its bias
//   kName, kBits                       "int8", 8
//   tensors(weight)                    what holds it, by name
//   dequantize(weight)                 [out, in] float32
//   rows(weight, first, count)         some outputs as a weight, or nullopt
//   multiply(x, maps)                  x Wᵀ + b of each map
//   fills_panels(rows)                 whether there are enough of them for the next two
//   panel_gelu(rows, map, kind), panel_gated(rows, gate, up)
//                                      activations while their inputs are in the cache
//   activation_dtype()                 what tells other activations how exact they have to be
#pragma once

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vlm/nn/cpu/activations.h"
#include "vlm/nn/cpu/matrix_rows.h"
#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

template <typename Format>
class StoredCodes : public StoredWeight {
 public:
  using Weight = typename Format::Weight;
  using Map = typename Format::Map;

  explicit StoredCodes(Weight weight) : weight_(std::move(weight)) {}

  const Weight& weight() const { return weight_; }

  std::string format() const override { return Format::kName; }
  at::Device device() const override { return at::kCPU; }

  std::int64_t nbytes() const override {
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : buffers())
      bytes += static_cast<std::int64_t>(tensor.nbytes());
    return bytes;
  }

  std::vector<std::pair<const char*, at::Tensor>> buffers() const override {
    return Format::tensors(weight_);
  }

  at::Tensor dense() const override { return Format::dequantize(weight_); }

  at::Tensor multiply(const at::Tensor& x, const at::Tensor& added,
                      at::ScalarType /*product_dtype*/) const override {
    TORCH_CHECK(!c10::GradMode::is_enabled() || !x.requires_grad(), "a weight in ", Format::kBits,
                " bits passes no gradient");
    return Format::multiply(x, {{&weight_, added}})[0];
  }

  std::vector<at::Tensor> multiply_each(const at::Tensor& x,
                                        const std::vector<StoredMap>& maps) const override {
    std::vector<Map> coded;
    coded.reserve(maps.size());
    for (const StoredMap& map : maps) coded.push_back(coded_map(map));
    return Format::multiply(x, coded);
  }

  at::Tensor gelu_mlp(const at::Tensor& x, const StoredMap& fc1, const StoredMap& fc2,
                      Gelu kind) const override {
    const at::Tensor rows = as_rows(x);
    const Map first = coded_map(fc1);
    const at::Tensor between = Format::fills_panels(rows) ? Format::panel_gelu(rows, first, kind)
                                                          : gelu(Format::multiply(rows, {first})[0],
                                                                 kind, Format::activation_dtype());
    return shaped_like(x, Format::multiply(between, {coded_map(fc2)})[0]);
  }

  at::Tensor gated_mlp(const at::Tensor& x, const StoredMap& gate, const StoredMap& up,
                       const StoredMap& down) const override {
    const at::Tensor rows = as_rows(x);
    const std::vector<Map> both = {coded_map(gate), coded_map(up)};
    at::Tensor between;
    if (Format::fills_panels(rows)) {
      between = Format::panel_gated(rows, both[0], both[1]);
    } else {
      const std::vector<at::Tensor> projected = Format::multiply(rows, both);
      between = gated_silu(projected[0], projected[1], Format::activation_dtype());
    }
    return shaped_like(x, Format::multiply(between, {coded_map(down)})[0]);
  }

  std::shared_ptr<const StoredWeight> rows(std::int64_t first, std::int64_t count) const override {
    auto part = Format::rows(weight_, first, count);
    return part ? std::make_shared<StoredCodes>(*std::move(part)) : nullptr;
  }

 private:
  static Map coded_map(const StoredMap& map) {
    return {&weight_of<StoredCodes>(map).weight(), map.bias};
  }

  Weight weight_;
};

}  // namespace vlm
