// x Wᵀ + b by oneDNN in place of LibTorch's default product.
//
//   x [rows, K], weight [N, K], bias [N] or undefined, all float32 ─► [rows, N] float32
//
// LibTorch multiplies float32 matrices with MKL, which takes its slower paths on processors that
// are not Intel's. oneDNN compiles its kernels for the processor at hand; on an AMD EPYC with
// AVX-512 it is a fifth quicker once there are enough rows to pay for rearranging the weights.
// Equal to at::linear up to the order of summation. No gradients.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// Whether onednn_linear is quicker for this many rows. Depends on the processor and on how LibTorch
// was built, so it is the same in every run on a machine.
bool prefers_onednn(const at::Tensor& x, std::int64_t rows);

at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace vlm
