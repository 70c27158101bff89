// How the weight of a linear layer is stored: one interface, and one file for each format.
//
//   x [..., in], weight [out, in] stored somehow ─► x Wᵀ + b [..., out]
//
// A Linear asks its StoredWeight for everything that depends on the format. To add a format, write
// a file beside stored_int8.h (codes with scales: a struct for stored_codes.h) and its row in
// weight_format.cpp. stored_dense.h has weights in float32, bfloat16 and float16, stored_int8.h
// those in 8 bits, stored_nf4.h those in NF4 and stored_int4.h those in 4 bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include "vlm/nn/cpu/gelu.h"

namespace vlm {

class StoredWeight;

// A layer without adapters: a weight, its bias [out] or undefined, and the dtype in which inputs in
// float32 are multiplied with a weight that is stored in fewer bits.
struct StoredMap {
  std::shared_ptr<const StoredWeight> weight;
  at::Tensor bias;
  at::ScalarType product_dtype = at::kFloat;
};

class StoredWeight {
 public:
  StoredWeight() = default;
  virtual ~StoredWeight() = default;
  StoredWeight(const StoredWeight&) = delete;
  StoredWeight& operator=(const StoredWeight&) = delete;

  // "float32", "bfloat16", "int8", …
  virtual std::string format() const = 0;
  virtual at::Device device() const = 0;
  virtual std::int64_t nbytes() const = 0;
  // The tensors that hold it, by the names that they have as buffers. None where the weight is a
  // parameter.
  virtual std::vector<std::pair<const char*, at::Tensor>> buffers() const { return {}; }

  // [out, in] in its own dtype, or in float32 where it is quantized.
  virtual at::Tensor dense() const = 0;
  // The same in `dtype`, for a product; not to be written to.
  virtual at::Tensor widen(at::ScalarType dtype) const { return dense().to(dtype); }

  // x Wᵀ + added [out] (undefined: nothing), in x's dtype.
  virtual at::Tensor multiply(const at::Tensor& x, const at::Tensor& added,
                              at::ScalarType product_dtype) const = 0;

  // Several products in one, where the format has something quicker than one after the other, for
  // x in float32 on the CPU and without gradients; otherwise nothing. All maps are of this weight's
  // class and have one product_dtype. The functions below ask for them.
  virtual std::vector<at::Tensor> multiply_each(const at::Tensor& /*x*/,
                                                const std::vector<StoredMap>& /*maps*/) const {
    return {};
  }
  virtual at::Tensor gelu_mlp(const at::Tensor& /*x*/, const StoredMap& /*fc1*/,
                              const StoredMap& /*fc2*/, Gelu /*kind*/) const {
    return {};
  }
  virtual at::Tensor gated_mlp(const at::Tensor& /*x*/, const StoredMap& /*gate*/,
                               const StoredMap& /*up*/, const StoredMap& /*down*/) const {
    return {};
  }
  // Outputs `first` … `first + count` as a weight of their own in the same memory, for gated_mlp;
  // null where the format can't.
  virtual std::shared_ptr<const StoredWeight> rows(std::int64_t /*first*/,
                                                   std::int64_t /*count*/) const {
    return nullptr;
  }
};

// The result of each map for the same x; nothing where that isn't quicker than one by one.
std::vector<at::Tensor> multiply_each(const at::Tensor& x, const std::vector<StoredMap>& maps);

// fc2(gelu(fc1(x))) and down(silu(gate(x)) · up(x)), the activation computed while its inputs are
// in the cache; undefined where the formats have no such product.
at::Tensor multiply_gelu(const at::Tensor& x, const StoredMap& fc1, const StoredMap& fc2,
                         Gelu kind);
at::Tensor multiply_gated(const at::Tensor& x, const StoredMap& gate, const StoredMap& up,
                          const StoredMap& down);

// A map's weight as the class that it is known to be.
template <typename Format>
const Format& weight_of(const StoredMap& map) {
  return static_cast<const Format&>(*map.weight);
}

}  // namespace vlm
