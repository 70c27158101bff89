// NF4 and 8-bit codes against bitsandbytes', bit by bit, and products with NF4 weights.
#include "vlm/nn/quantize.h"

#include <ATen/Parallel.h>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/frozen_linear.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

void check_equal(const at::Tensor& found, const at::Tensor& wanted) {
  REQUIRE(found.sizes() == wanted.sizes());
  REQUIRE(found.scalar_type() == wanted.scalar_type());
  CHECK(found.ne(wanted).sum().item<std::int64_t>() == 0);
}

TEST_CASE("NF4 codes, scales and values are those of bitsandbytes") {
  const Golden golden("optimizers/nf4.safetensors");
  for (const std::string name : {"whole", "rest", "many"}) {
    INFO(name);
    const Nf4Weight stored = quantize_nf4(golden[name + ".weight"]);
    check_equal(stored.codes, golden[name + ".codes"]);
    check_equal(stored.absmax.codes, golden[name + ".absmax"]);
    check_equal(stored.absmax.scales, golden[name + ".absmax_scales"]);
    check_equal(stored.absmax_mean.view({1}), golden[name + ".absmax_mean"]);
    check_equal(dequantize_nf4(stored, at::kFloat), golden[name + ".dequantized"]);
    check_equal(dequantize_nf4(stored, at::kBFloat16),
                golden[name + ".dequantized"].to(at::kBFloat16));
  }
}

TEST_CASE("levels of 8-bit codes are those of bitsandbytes") {
  const Golden golden("optimizers/golden.safetensors");
  check_equal(dynamic_levels(true, at::kCPU), golden["adamw_8bit.qmap1"]);
  check_equal(dynamic_levels(false, at::kCPU), golden["adamw_8bit.qmap2"]);
}

TEST_CASE("every level comes back as it was, and zeros stay zero") {
  for (const bool is_signed : {true, false}) {
    const at::Tensor levels = dynamic_levels(is_signed, at::kCPU);
    const at::Tensor values = at::cat({levels * 3, at::zeros({256}), levels * 0.01F});
    const BlockwiseCodes stored = quantize_blockwise(values, levels);
    CHECK(stored.codes.narrow(0, 0, 256).to(at::kLong).equal(at::arange(256)));
    check_close(dequantize_blockwise(stored, levels), values, 1e-6);
    CHECK(dequantize_blockwise(stored, levels).narrow(0, 256, 256).abs().max().item<float>() == 0);
  }
  const at::Tensor levels = nf4_levels(at::kCPU).repeat({4}).view({4, 16});
  CHECK(dequantize_nf4(quantize_nf4(levels), at::kFloat).equal(levels));
}

TEST_CASE("NF4 doesn't depend on threads or on how a large weight is cut") {
  at::manual_seed(1);
  const at::Tensor weight = at::randn({1100, 1000});  // more than one piece
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Nf4Weight one = quantize_nf4(weight);
  const at::Tensor values = dequantize_nf4(one, at::kFloat);
  at::set_num_threads(threads);
  CHECK(one.codes.equal(quantize_nf4(weight).codes));
  CHECK(dequantize_nf4(one, at::kFloat).equal(values));
  const at::Tensor halves = at::cat({weight.narrow(0, 0, 640), weight.narrow(0, 640, 460)});
  CHECK(quantize_nf4(halves).codes.equal(one.codes));
  // The error is at most half the widest gap of levels, times the block's largest value.
  CHECK((values - weight).abs().max().item<double>() < 0.17 * weight.abs().max().item<double>());
  CHECK(static_cast<double>(one.nbytes()) * 8 / 1.1e6 < 4.14);  // bits a value
}

// y, and the gradients of x and of the bias, for the loss Σ y·mix.
struct Outcome {
  at::Tensor y, x_grad, bias_grad;
};

template <typename Product>
Outcome differentiate(const at::Tensor& x, const at::Tensor& bias, const Product& product) {
  const at::Tensor own = x.clone().requires_grad_(), own_bias = bias.clone().requires_grad_();
  const at::Tensor y = product(own, own_bias);
  const at::Tensor mix = at::arange(y.numel(), at::kFloat).view(y.sizes()).cos();
  (y * mix).sum().backward();
  return {y.detach(), own.grad(), own_bias.grad()};
}

void check_outcome(const Outcome& found, const Outcome& wanted) {
  check_close(found.y, wanted.y, 1e-6);
  check_close(found.x_grad, wanted.x_grad, 1e-6);
  check_close(found.bias_grad, wanted.bias_grad, 1e-6);
}

TEST_CASE("products with frozen NF4 and bfloat16 weights: values and gradients of the wide ones") {
  at::manual_seed(2);
  const at::Tensor x = at::randn({2, 3, 40}), weight = at::randn({30, 40}), bias = at::randn({30});
  const auto stored = std::make_shared<Nf4Weight>(quantize_nf4(weight));
  const at::Tensor wide = dequantize_nf4(*stored, at::kFloat), half = weight.to(at::kBFloat16);
  const auto plain = [&](const at::Tensor& matrix) {
    return differentiate(x, bias, [&](const at::Tensor& in, const at::Tensor& added) {
      return at::linear(in, matrix, added);
    });
  };
  check_outcome(differentiate(x, bias,
                              [&](const at::Tensor& in, const at::Tensor& added) {
                                return nf4_linear(in, stored, added, at::kFloat);
                              }),
                plain(wide));
  check_outcome(differentiate(x, bias,
                              [&](const at::Tensor& in, const at::Tensor& added) {
                                return frozen_bfloat16_linear(in, half, added, at::kFloat);
                              }),
                plain(half.to(at::kFloat)));
  CHECK_FALSE(nf4_linear(x, stored, bias, at::kFloat).requires_grad());
  CHECK(nf4_linear(x, stored, {}, at::kFloat).equal(at::linear(x, wide)));
}

TEST_CASE("frozen weights multiplied in bfloat16: near the wide ones, forward and backward") {
  at::manual_seed(7);
  const at::Tensor x = at::randn({2, 80, 64}), bias = at::randn({32});
  Linear nf4(64, 32, true), half(64, 32, true);
  nf4.store_nf4(at::randn({32, 64}));
  half.weight.set_data(at::randn({32, 64}).to(at::kBFloat16));
  for (Linear* linear : {&nf4, &half}) {
    const auto run = [&](at::ScalarType product_dtype) {
      linear->product_dtype = product_dtype;
      return differentiate(x, bias, [&](const at::Tensor& in, const at::Tensor& added) {
        return linear->multiply(in, added);
      });
    };
    const Outcome exact = run(at::kFloat), rounded = run(at::kBFloat16);
    CHECK_FALSE(rounded.y.equal(exact.y));
    CHECK_FALSE(rounded.x_grad.equal(exact.x_grad));
    check_close(rounded.y, exact.y, 1e-2);
    check_close(rounded.x_grad, exact.x_grad, 1e-2);
    check_close(rounded.bias_grad, exact.bias_grad, 1e-6);
  }
}

TEST_CASE("a bias alone is trained beside a frozen NF4 weight") {
  at::manual_seed(3);
  const at::Tensor x = at::randn({5, 64});
  const auto stored = std::make_shared<Nf4Weight>(quantize_nf4(at::randn({8, 64})));
  const at::Tensor bias = at::zeros({8}).requires_grad_();
  nf4_linear(x, stored, bias, at::kFloat).sum().backward();
  check_close(bias.grad(), at::full({8}, 5.0), 1e-6);
}

TEST_CASE("a Linear goes into NF4 and back; in NF4 it has no weight parameter") {
  at::manual_seed(4);
  const at::Tensor value = at::randn({16, 32});
  Linear linear(32, 16, true);
  linear.store_nf4(value);
  CHECK(linear.named_parameters().size() == 1);
  CHECK(linear.named_buffers().size() == 4);
  CHECK_FALSE(linear.weight.defined());
  CHECK(linear.in_features() == 32);
  CHECK(linear.out_features() == 16);
  const at::Tensor wide = linear.dense_weight();
  CHECK(wide.equal(dequantize_nf4(quantize_nf4(value), at::kFloat)));
  linear.set_weight(wide);
  CHECK(linear.nf4() == nullptr);
  CHECK(linear.named_parameters().contains("weight"));
  CHECK(linear.named_buffers().is_empty());
  CHECK(linear.weight.equal(wide));
}

TEST_CASE("the 2.2B base takes less than 1.6 GB in NF4") {
  // Shapes of SmolVLM2-2.2B: what is in NF4 by its own count of bytes, the rest as it is loaded.
  double bytes = 0;
  const auto nf4 = [&](double count, double out, double in) {
    const double values = out * in, blocks = values / 64;
    bytes += count * (values / 2 + blocks + blocks / 256 * 4 + 4);
  };
  nf4(24 * 4, 2048, 2048);
  nf4(24 * 3, 8192, 2048);
  nf4(27 * 4, 1152, 1152);
  nf4(27 * 2, 4304, 1152);
  nf4(1, 2048, 10368);
  bytes += 2 * 2 * 49280.0 * 2048;  // embeddings and head, bfloat16
  // float32: norms and biases of both towers, patch and position embeddings
  bytes += 4 * (24 * 2 + 1) * 2048.0;
  bytes += 4 * 27 * (4 * 1152 + 4 * 1152 + 4304 + 1152.0);
  bytes += 4 * (1152 * 3 * 14 * 14 + 1152 + 729 * 1152 + 2 * 1152.0);
  CHECK(bytes < 1.6e9);
  const Nf4Weight layer = quantize_nf4(at::zeros({1152, 1152}));
  CHECK(layer.nbytes() == 1152 * 1152 / 2 + 20736 + 81 * 4 + 4);
}

}  // namespace
}  // namespace vlm
