// A matrix in 4 bits as other programs pack it: codes, and scales that some inputs share.
//
//   W[n, i] = scale[n, g(i)] · (code[n, i] − zero[n, g(i)])      or scale · level[code]
//
// One function for each packing: compressed-tensors (pack-quantized), GPTQ (v1 and v2), AWQ (gemm)
// and bitsandbytes (NF4). References: compressed-tensors 0.20, AutoGPTQ 0.7 and GPTQModel, AutoAWQ
// 0.2, bitsandbytes 0.50.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "vlm/io/checkpoint.h"
#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

inline constexpr std::int64_t kPackedStep = 32;  // inputs that are read at a time

class PackedGroups {
 public:
  virtual ~PackedGroups() = default;
  PackedGroups() = default;
  PackedGroups(const PackedGroups&) = delete;
  PackedGroups& operator=(const PackedGroups&) = delete;

  // [out, in] float32.
  at::Tensor dense() const;
  // With the file's own codes, or null where the kernel for 4 bits can't hold them: zeros that
  // aren't in the middle, inputs in another order, scales that are no halves.
  std::shared_ptr<const StoredWeight> stored() const;
  bool fits_kernel() const;

  std::int64_t out = 0, in = 0;

 protected:
  // Codes of output n for the inputs begin … begin + count, at most kPackedStep.
  virtual void read_codes(std::int64_t n, std::int64_t begin, std::int64_t count,
                          std::uint8_t* to) const = 0;

  std::int64_t group_of(std::int64_t i) const {
    return group_index_.defined() ? order_[i] : i / group_;
  }
  float value_of(std::int64_t n, std::int64_t i, std::uint8_t code) const;
  // Takes scales and zeros of [groups, out], or of [out, groups], in any float dtype, and the
  // inputs' groups (undefined: in order). Throws Error naming `where` for sizes that don't fit.
  void set_groups(const at::Tensor& scales, const at::Tensor& zeros, const at::Tensor& group_index,
                  const std::string& where);

  std::array<float, 16> levels_ = {};  // of NF4
  bool has_levels_ = false;

 private:
  std::int64_t group_ = 1, groups_ = 1;
  at::Tensor scales_, zeros_;  // [out, groups] float32; zeros undefined: 8
  at::Tensor group_index_;     // [in] int32
  const std::int32_t* order_ = nullptr;
};

// What a checkpoint says of how its weights are packed.
enum class PackedKind { kCompressed, kGptq, kGptqV2, kAwq, kNf4 };

// The matrix whose tensors' names begin with `base` ("….q_proj."). Throws Error naming tensor,
// shape and what was wanted.
std::unique_ptr<PackedGroups> open_packed(const Checkpoint& files, const std::string& base,
                                          PackedKind kind);

}  // namespace vlm
