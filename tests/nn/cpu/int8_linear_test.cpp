// Weights in 8 bits: how near they are, and products with them beside integer arithmetic.
#include "vlm/nn/cpu/int8/int8_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <limits>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/cpu/activations.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/mlp.h"

namespace vlm {
namespace {

// Numbers whose codes are known: integers up to 126 and less than half beside them, and one 127 a
// row, times a power of two a row.
struct Known {
  at::Tensor values;         // [rows, k] float32
  at::Tensor codes, scales;  // [rows, k] and [rows, 1] float64

  Known(std::int64_t rows, std::int64_t k)
      : codes(at::randint(-126, 127, {rows, k}, at::kDouble)),
        scales(at::exp2(at::randint(-3, 4, {rows, 1}, at::kDouble))) {
    at::Tensor beside = at::rand({rows, k}, at::kDouble) * 0.9 - 0.45;
    codes.select(1, 0).fill_(127);
    beside.select(1, 0).zero_();
    values = ((codes + beside) * scales).to(at::kFloat);
  }
};

// x Wᵀ + b of both sides' integers.
at::Tensor multiply_codes_exactly(const Known& x, const Known& weight, const at::Tensor& bias) {
  const at::Tensor y = x.codes.matmul(weight.codes.t()) * x.scales * weight.scales.t();
  return bias.defined() ? y + bias : y;
}

TEST_CASE("8 bits: a weight within half a step of its row, from any dtype") {
  at::manual_seed(1);
  for (const auto& [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 1}, {3, 63}, {5, 64}, {70, 65}, {40, 3000}}) {
    at::Tensor wide = at::randn({n, k}) * at::rand({n, 1}).add(1e-3).log().exp();
    if (n > 1) wide[1].zero_();
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      INFO(concat(n, " x ", k, " ", dtype));
      const at::Tensor weight = wide.to(dtype), exact = weight.to(at::kFloat);
      const Int8Weight stored = quantize_int8(weight);
      CHECK(stored.codes.size(1) % kCodesStep == 0);
      CHECK(stored.codes.narrow(1, k, stored.codes.size(1) - k).eq(128).all().item<bool>());
      const at::Tensor found = dequantize_int8(stored);
      REQUIRE(found.sizes() == exact.sizes());
      const at::Tensor steps = exact.abs().amax(1, true) / 127;
      CHECK(((found - exact).abs() <= steps * 0.5001).all().item<bool>());
      // The largest of a row is met.
      CHECK((found.abs().amax(1) - exact.abs().amax(1)).abs().max().item<float>() <=
            1e-6 * exact.abs().max().item<float>());
    }
  }
}

TEST_CASE("8 bits: products are those of the integers, for every edge of vectors and panels") {
  at::manual_seed(2);
  for (const auto& [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 1}, {3, 31}, {16, 64}, {7, 65}, {300, 96}, {66, 5000}}) {
    const Known weight(n, k);
    const at::Tensor bias = at::randn({n});
    const Int8Weight stored = quantize_int8(weight.values);
    for (const std::int64_t rows : {1, 2, 3, 7, 16, 17, 64, 65, 130}) {
      INFO(concat(rows, " rows, weight ", n, " x ", k));
      const Known x(rows, k);
      // x stays float32: the numbers that are stored, multiplied.
      CHECK(linear_error(int8_linears(x.values, {{&stored, bias}}, false)[0], x.values,
                         dequantize_int8(stored), bias) < 1e-6);
      if (!has_int8_products()) continue;
      check_close(int8_linears(x.values, {{&stored, bias}})[0],
                  multiply_codes_exactly(x, weight, bias), 1e-6);
      check_close(int8_linears(x.values, {{&stored, {}}})[0], multiply_codes_exactly(x, weight, {}),
                  1e-6);
    }
  }
}

TEST_CASE("8 bits: a row's result is the same alone, among many, and on one thread") {
  at::manual_seed(3);
  const at::Tensor bias = at::randn({90});
  const Int8Weight first = quantize_int8(at::randn({90, 130})),
                   second = quantize_int8(at::randn({33, 130}));
  const at::Tensor x = at::randn({130, 2, 50}).permute({1, 2, 0});  // not contiguous
  const std::vector<Int8Map> maps = {{&first, bias}, {&second, {}}};
  const std::vector<at::Tensor> all = int8_linears(x, maps);
  REQUIRE(all[0].sizes() == at::IntArrayRef({2, 50, 90}));
  REQUIRE(all[1].sizes() == at::IntArrayRef({2, 50, 33}));
  CHECK(int8_linears(x.narrow(1, 0, 0), maps)[1].sizes() == at::IntArrayRef({2, 0, 33}));
  for (const std::size_t i : {0, 1}) {
    CHECK(int8_linears(x, {maps[i]})[0].equal(all[i]));
    if (!has_int8_products()) continue;
    for (const std::int64_t row : {0, 15, 16, 49}) {
      for (const std::int64_t count : {1, 5}) {
        const std::int64_t begin = std::min<std::int64_t>(row, 50 - count);
        CHECK(int8_linears(x.narrow(1, begin, count).narrow(0, 1, 1), maps)[i].equal(
            all[i].narrow(1, begin, count).narrow(0, 1, 1)));
      }
    }
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  CHECK(int8_linears(x, maps)[0].equal(all[0]));
  at::set_num_threads(threads);
}

TEST_CASE("8 bits: a row with no finite number spoils no other; nothing and next to nothing") {
  at::manual_seed(4);
  const Int8Weight stored = quantize_int8(at::randn({20, 70}));
  at::Tensor x = at::randn({40, 70});
  const at::Tensor clean = int8_linears(x, {{&stored, {}}})[0];
  x[3][69] = std::numeric_limits<float>::quiet_NaN();
  x[20][0] = std::numeric_limits<float>::infinity();
  x[21].zero_();
  x[22].fill_(1e-40F);
  for (const std::int64_t rows : {30, 4}) {
    const at::Tensor y = int8_linears(x.narrow(0, 0, rows), {{&stored, {}}})[0];
    CHECK(y[3].isnan().all().item<bool>());
    CHECK(y[2].equal(clean[2]));
    if (rows < 30) continue;
    CHECK_FALSE(y[20].isfinite().any().item<bool>());
    CHECK(y[21].eq(0).all().item<bool>());
    CHECK(y[22].abs().max().item<float>() < 1e-36F);
  }
}

std::shared_ptr<Linear> make_int8(std::int64_t in, std::int64_t out, bool has_bias) {
  auto layer = std::make_shared<Linear>(in, out, has_bias);
  if (has_bias) layer->bias.set_data(at::randn({out}));
  layer->store_int8(at::randn({out, in}));
  return layer;
}

TEST_CASE("8 bits: MLPs together as one layer after the other, whatever the number of rows") {
  const c10::NoGradGuard no_grad;
  at::manual_seed(5);
  for (const auto& [in, between] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{6, 5}, {66, 258}, {40, 2100}}) {
    for (const bool has_bias : {false, true}) {
      const auto fc1 = make_int8(in, between, has_bias), up = make_int8(in, between, has_bias);
      const auto fc2 = make_int8(between, 10, has_bias);
      for (const std::int64_t rows : {3, 16, 17, 130}) {
        INFO(concat(rows, " rows, ", in, " to ", between, ", bias ", has_bias));
        const at::Tensor x = at::randn({1, rows, in});
        const at::Tensor decoded = gated_mlp(x, *fc1, *up, *fc2);
        // Both sides round what is between, whose last bits differ: a step of 8 bits.
        check_close(decoded, fc2->forward(at::silu(fc1->forward(x)) * up->forward(x)), 2e-2);
        const at::Tensor one = x.narrow(1, rows - 1, 1);
        for (const Gelu kind : {Gelu::kErf, Gelu::kTanh, Gelu::kQuick}) {
          const at::Tensor encoded = gelu_mlp(x, *fc1, *fc2, kind);
          check_close(encoded, fc2->forward(gelu(fc1->forward(x), kind)), 2e-2);
          if (!has_int8_products()) continue;
          CHECK(gelu_mlp(one, *fc1, *fc2, kind).equal(encoded.narrow(1, rows - 1, 1)));
        }
        if (!has_int8_products()) continue;
        CHECK(gated_mlp(one, *fc1, *up, *fc2).equal(decoded.narrow(1, rows - 1, 1)));
      }
    }
  }
}

TEST_CASE("8 bits: near the weights they are made of") {
  at::manual_seed(6);
  const at::Tensor weight = at::randn({200, 512}), x = at::randn({90, 512});
  const Int8Weight stored = quantize_int8(weight);
  const at::Tensor found = int8_linears(x, {{&stored, {}}})[0];
  CHECK(linear_error(found, x, weight, {}) < 2e-2);
  CHECK(linear_error(found, x, weight, {}) > 1e-5);  // it is rounded
}

TEST_CASE("a Linear goes into 8 bits and back; it passes no gradient there") {
  at::manual_seed(7);
  const at::Tensor value = at::randn({16, 32}), x = at::randn({2, 3, 32});
  Linear linear(32, 16, true);
  linear.bias.set_data(at::randn({16}));
  linear.store_int8(value);
  CHECK(linear.named_parameters().size() == 1);
  CHECK(linear.named_buffers().size() == 2);
  CHECK_FALSE(linear.weight.defined());
  CHECK(linear.device().is_cpu());
  CHECK(linear.dense_weight().equal(dequantize_int8(quantize_int8(value))));
  {
    const c10::NoGradGuard no_grad;
    CHECK(linear.forward(x).equal(forward_each(x, {&linear, &linear})[1]));
    CHECK(linear.forward(x).sizes() == at::IntArrayRef({2, 3, 16}));
  }
  CHECK_THROWS(linear.forward(x.clone().requires_grad_()));
  linear.store_nf4(value);
  CHECK(linear.int8() == nullptr);
  CHECK(linear.named_buffers().size() == 4);
  linear.store_int8(value);
  CHECK(linear.nf4() == nullptr);
  linear.set_weight(value);
  CHECK(linear.int8() == nullptr);
  CHECK(linear.named_buffers().is_empty());
  CHECK(linear.forward(x).equal(at::linear(x, value, linear.bias)));
  CHECK_THROWS(linear.store_int8(at::randn({16, 31})));
}

}  // namespace
}  // namespace vlm
