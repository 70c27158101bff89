// Weights in 4 bits: scales, codes and layout, and products with them beside plain arithmetic.
#include "vlm/nn/cpu/int4/int4_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/cpu/activations.h"
#include "vlm/nn/cpu/int4/int4_few_rows.h"
#include "vlm/nn/cpu/int8/int8_weight.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/mlp.h"
#include "vlm/nn/weights/stored_int4.h"

namespace vlm {
namespace {

// What a weight holds of output n and input k, by the layout that int4_weight.h names.
struct Coded {
  int code;
  float scale;
};

Coded coded_at(const Int4Weight& weight, std::int64_t n, std::int64_t k) {
  const std::int64_t r = n % 16, in_group = k % 32, j = in_group / 8, i = in_group % 4;
  const at::Tensor block = weight.blocks[n / 16][k / 32];
  const auto* bytes = block.const_data_ptr<std::uint8_t>();
  const std::uint8_t byte = bytes[j * 64 + r * 4 + i];
  c10::Half scale;
  std::memcpy(&scale, bytes + 256 + 2 * r, 2);
  return {in_group % 8 < 4 ? byte & 15 : byte >> 4, static_cast<float>(scale)};
}

double signal_to_error_db(const at::Tensor& wide, const Int4Weight& stored) {
  const at::Tensor exact = wide.to(at::kDouble);
  const at::Tensor error = dequantize_int4(stored).to(at::kDouble) - exact;
  return 10 * std::log10((exact.square().sum() / error.square().sum()).item<double>());
}

TEST_CASE("4 bits: scales and codes of even levels are llama.cpp's Q4_0") {
  at::manual_seed(1);
  at::Tensor wide = at::randn({32, 96}) * at::rand({32, 1}).add(1e-2);
  wide[1].narrow(0, 32, 32).zero_();
  wide[2].fill_(-0.25);  // all of the largest magnitude
  wide[3][5] = -9;       // the first of two decides the sign
  wide[3][7] = 9;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor weight = wide.to(dtype), exact = weight.to(at::kFloat);
    const Int4Weight stored = quantize_int4(weight, kEvenLevels);
    REQUIRE(stored.blocks.sizes() == at::IntArrayRef({2, 3, 288}));
    const at::Tensor found = dequantize_int4(stored);
    for (std::int64_t n = 0; n < 32; ++n) {
      const auto* values = exact[n].const_data_ptr<float>();
      for (std::int64_t g = 0; g < 3; ++g) {
        float largest = 0;
        for (int i = 0; i < 32; ++i) {
          if (std::abs(values[32 * g + i]) > std::abs(largest)) largest = values[32 * g + i];
        }
        const float scale = largest / -8, inverse = scale != 0 ? 1 / scale : 0;
        for (std::int64_t k = 32 * g; k < 32 * g + 32; ++k) {
          const int code = std::min(15, static_cast<int>(values[k] * inverse + 8.5F));
          const Coded own = coded_at(stored, n, k);
          REQUIRE(own.scale == static_cast<float>(c10::Half(scale)));
          if (scale != 0) REQUIRE(own.code == code);
          REQUIRE(found[n][k].item<float>() == own.scale * kEvenLevels[own.code]);
        }
      }
    }
  }
}

TEST_CASE("4 bits: near levels lose less; their codes are the nearest to their scales") {
  at::manual_seed(2);
  const at::Tensor wide = at::randn({256, 2048});
  const Int4Weight even = quantize_int4(wide, kEvenLevels), near = quantize_int4(wide);
  CHECK(signal_to_error_db(wide, even) == Approx(21.3).margin(0.15));
  CHECK(signal_to_error_db(wide, near) == Approx(22.4).margin(0.15));
  for (std::int64_t n = 0; n < 256; n += 37) {
    for (std::int64_t k = 0; k < 2048; k += 11) {
      const Coded own = coded_at(near, n, k);
      const float value = wide[n][k].item<float>();
      float least = std::numeric_limits<float>::max();
      for (const std::int8_t level : kNearLevels) {
        least = std::min(least, std::abs(value - own.scale * level));
      }
      // Numbers are rounded to 1/127 of the largest, and the scale later to 11 bits.
      CHECK(std::abs(value - own.scale * kNearLevels[own.code]) <=
            least + std::abs(own.scale) * (1 + 127.0 / 1024));
    }
  }
}

TEST_CASE("4 bits: groups of nothing, of next to nothing, and with no finite number") {
  at::Tensor wide = at::ones({16, 64});
  wide[0].zero_();
  wide[1].fill_(1e-38F);
  wide[2][3] = std::numeric_limits<float>::quiet_NaN();
  wide[3][40] = -std::numeric_limits<float>::infinity();
  for (const Int4Levels& levels : {kEvenLevels, kNearLevels}) {
    const Int4Weight stored = quantize_int4(wide, levels);
    const at::Tensor found = dequantize_int4(stored);
    CHECK(found.narrow(0, 0, 2).eq(0).all().item<bool>());
    CHECK(found[2].narrow(0, 0, 32).isnan().all().item<bool>());
    CHECK(found[3].narrow(0, 32, 32).isnan().all().item<bool>());
    CHECK((found.narrow(0, 4, 12) - 1).abs().max().item<float>() < 0.01);
    CHECK(stored.row_scales.isnan().equal(at::arange(16).eq(2).logical_or(at::arange(16).eq(3))));
  }
}

TEST_CASE("4 bits: every kernel of this processor gives the same numbers") {
  at::manual_seed(3);
  const auto& kernels = int4_kernels();
  const Int4Kernel& plain = kernels.back();
  REQUIRE(plain.is_usable);
  for (const Int4Kernel& kernel : kernels) {
    if (!kernel.is_usable) {
      WARN("not on this processor, so not tested: " << kernel.name);
      continue;
    }
    for (const auto& [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {16, 32}, {48, 96}, {160, 576}, {32, 8192}}) {
      for (const bool is_even : {true, false}) {
        const Int4Weight weight =
            quantize_int4(at::randn({n, k}), is_even ? kEvenLevels : kNearLevels);
        const at::Tensor bias = at::randn({n});
        for (const std::int64_t rows : {1, 2, 3, 4, 7, 16}) {
          INFO(concat(kernel.name, ": ", rows, " rows, weight ", n, " x ", k));
          GroupedRows x;
          quantize_groups(at::randn({rows, k}) * 3, x);
          std::fill_n(x.codes.begin(), 4, std::int8_t{-127});
          x.offsets[0] = 0;
          for (int i = 0; i < 32; ++i) x.offsets[0] += 128 * x.codes[i];
          const at::Tensor y = at::empty({rows, n}), wanted = at::empty({rows, n});
          Int4Rows product{.x = x.codes.data(),
                           .x_scales = x.scales.data(),
                           .offsets = x.offsets.data(),
                           .blocks = weight.panel(0),
                           .levels = weight.levels.data(),
                           .bias = rows == 3 ? nullptr : bias.const_data_ptr<float>(),
                           .y = y.mutable_data_ptr<float>(),
                           .rows = rows,
                           .inputs = k,
                           .n = n / 16,
                           .k = 16 * k};
          kernel.multiply(product, 0, n / 16);
          product.y = wanted.mutable_data_ptr<float>();
          plain.multiply(product, 0, n / 16);
          CHECK(y.equal(wanted));
          // And those are the sums of the rounded numbers.
          const at::Tensor codes = at::from_blob(x.codes.data(), {rows, k / 32, 32}, at::kChar);
          const at::Tensor scales = at::from_blob(x.scales.data(), {rows, k / 32, 1}, at::kFloat);
          const at::Tensor rounded = (codes.to(at::kDouble) * scales).view({rows, k});
          at::Tensor exact = rounded.matmul(dequantize_int4(weight).to(at::kDouble).t());
          if (product.bias) exact += bias;
          check_close(y, exact, 3e-6);
        }
      }
    }
  }
}

TEST_CASE("4 bits: a few rows are within the rounding of x, and don't depend on each other") {
  at::manual_seed(4);
  const Int4Weight weight = quantize_int4(at::randn({48, 160})),
                   other = quantize_int4(at::randn({16, 160}));
  const at::Tensor bias = at::randn({48});
  const at::Tensor x = at::randn({160, 2, 8}).permute({1, 2, 0});  // not contiguous
  const std::vector<at::Tensor> all = int4_linears(x, {{&weight, bias}, {&other, {}}});
  REQUIRE(all[0].sizes() == at::IntArrayRef({2, 8, 48}));
  REQUIRE(all[1].sizes() == at::IntArrayRef({2, 8, 16}));
  // Half a step of each group times the magnitude of its weights.
  const at::Tensor wide = dequantize_int4(weight).to(at::kDouble);
  const at::Tensor steps = x.reshape({16, 5, 32}).abs().amax(2).to(at::kDouble) / 127;  // [16, 5]
  const at::Tensor bound = (steps / 2).matmul(wide.abs().view({48, 5, 32}).sum(2).t());
  const at::Tensor exact = x.reshape({16, 160}).to(at::kDouble).matmul(wide.t()) + bias;
  CHECK(((all[0].view({16, 48}) - exact).abs() <= bound * 1.0001 + 1e-5).all().item<bool>());
  for (const std::int64_t row : {0, 5}) {
    CHECK(int4_linears(x.narrow(1, row, 1), {{&weight, bias}})[0].equal(all[0].narrow(1, row, 1)));
    CHECK(int4_linears(x.narrow(1, row, 3), {{&other, {}}})[0].equal(all[1].narrow(1, row, 3)));
  }
  CHECK(int4_linears(x.narrow(1, 0, 0), {{&weight, bias}})[0].sizes() ==
        at::IntArrayRef({2, 0, 48}));
  CHECK_THROWS(int4_linears(at::randn({2, 128}), {{&weight, {}}}));
}

TEST_CASE("4 bits: many rows are multiplied as the weights' 8 bits are") {
  at::manual_seed(5);
  for (const auto& [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {16, 32}, {80, 96}, {144, 64}, {64, 4160}}) {
    for (const Int4Levels& levels : {kEvenLevels, kNearLevels}) {
      const Int4Weight weight = quantize_int4(at::randn({n, k}), levels);
      const at::Tensor wide = dequantize_int4(weight), bias = at::randn({n});
      const Int8Weight narrow{.codes = at::empty({n, round_up(k, kCodesStep)}, at::kByte),
                              .scales = weight.row_scales,
                              .in_features = k};
      unpack_int4(weight, 0, n, narrow.codes.mutable_data_ptr<std::uint8_t>());
      CHECK(narrow.codes.narrow(1, k, narrow.codes.size(1) - k).eq(128).all().item<bool>());
      // Half a step, and what the factors of 15 bits add.
      const at::Tensor steps = weight.row_scales.unsqueeze(1);
      CHECK(((dequantize_int8(narrow) - wide).abs() <= steps * 0.51).all().item<bool>());
      for (const std::int64_t rows : {17, 64, 65, 130, 300}) {
        INFO(concat(rows, " rows, weight ", n, " x ", k));
        const at::Tensor x = at::randn({rows, k});
        // x stays float32: the numbers that are stored, multiplied.
        CHECK(linear_error(int4_linears(x, {{&weight, bias}}, false)[0], x, wide, bias) <
              (rows > 64 ? 1e-6 : 2e-2));
        if (!has_int8_products()) continue;
        const at::Tensor y = int4_linears(x, {{&weight, bias}})[0];
        CHECK(y.equal(int8_panel_linears(x, {{&narrow, bias}})[0]));
        CHECK(linear_error(y, x, wide, bias) < 2e-2);
      }
    }
  }
  if (!has_int8_products()) WARN("no products of 8 bits on this processor: not tested");
}

TEST_CASE("4 bits: neither threads nor a bad row change another row") {
  at::manual_seed(6);
  const at::Tensor wide = at::randn({176, 128});
  const Int4Weight weight = quantize_int4(wide);
  at::Tensor x = at::randn({40, 128});
  const auto run = [&](std::int64_t rows) {
    return int4_linears(x.narrow(0, 0, rows), {{&weight, {}}})[0];
  };
  const at::Tensor few = run(9), many = run(40);
  const int threads = at::get_num_threads();
  for (const int count : {1, 3, 7}) {
    at::set_num_threads(count);
    CHECK(run(9).equal(few));
    CHECK(run(40).equal(many));
    CHECK(quantize_int4(wide).blocks.equal(weight.blocks));
  }
  at::set_num_threads(threads);
  x[3][127] = std::numeric_limits<float>::quiet_NaN();
  x[4][0] = std::numeric_limits<float>::infinity();
  x[5].zero_();
  for (const std::int64_t rows : {9, 40}) {
    const at::Tensor y = run(rows);
    CHECK(y[3].isnan().all().item<bool>());
    CHECK_FALSE(y[4].isfinite().any().item<bool>());
    CHECK(y[5].eq(0).all().item<bool>());
    CHECK(y[6].equal((rows == 9 ? few : many)[6]));
  }
}

TEST_CASE("4 bits: codes and scales of other programs go in as they are") {
  at::manual_seed(7);
  Int4Levels levels;
  for (std::size_t i = 0; i < 16; ++i) levels[i] = static_cast<std::int8_t>(8 * int(i) - 64);
  const at::Tensor codes = at::randint(0, 16, {32, 2, 32}, at::kByte);
  const at::Tensor scales = at::randn({32, 2}).to(at::kHalf).to(at::kFloat);
  const Int4Weight stored = pack_int4(32, 64, levels, [&](std::int64_t panel, CodedGroup* groups) {
    for (std::int64_t i = 0; i < 32; ++i) {
      const std::int64_t n = panel * 16 + i / 2, g = i % 2;
      groups[i].scale = scales[n][g].item<float>();
      std::memcpy(groups[i].codes, codes[n][g].const_data_ptr<std::uint8_t>(), 32);
    }
  });
  const at::Tensor wanted = (codes.to(at::kFloat) * 8 - 64) * scales.unsqueeze(2);
  CHECK(dequantize_int4(stored).equal(wanted.view({32, 64})));
  CHECK_FALSE(fits_int4(24, 64));
  CHECK_FALSE(fits_int4(32, 48));
  CHECK_FALSE(fits_int4(0, 32));
  CHECK_THROWS(quantize_int4(at::randn({24, 64})));
  CHECK_THROWS(quantize_int4(at::randn({32, 40})));
}

std::shared_ptr<Linear> make_int4(std::int64_t in, std::int64_t out, bool has_bias) {
  auto layer = std::make_shared<Linear>(in, out, has_bias);
  if (has_bias) layer->bias.set_data(at::randn({out}));
  layer->store(std::make_shared<StoredInt4>(quantize_int4(at::randn({out, in}))));
  return layer;
}

TEST_CASE("4 bits: MLPs together as one layer after the other, whatever the number of rows") {
  const c10::NoGradGuard no_grad;
  at::manual_seed(8);
  for (const auto& [in, between] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{32, 32}, {96, 288}}) {
    for (const bool has_bias : {false, true}) {
      const auto fc1 = make_int4(in, between, has_bias), up = make_int4(in, between, has_bias);
      const auto fc2 = make_int4(between, 16, has_bias);
      const auto both = make_int4(in, 2 * between, has_bias);
      for (const std::int64_t rows : {3, 16, 17, 130}) {
        INFO(concat(rows, " rows, ", in, " to ", between, ", bias ", has_bias));
        const at::Tensor x = at::randn({1, rows, in});
        for (const Gelu kind : {Gelu::kErf, Gelu::kTanh, Gelu::kQuick}) {
          check_close(gelu_mlp(x, *fc1, *fc2, kind), fc2->forward(gelu(fc1->forward(x), kind)),
                      2e-2);
        }
        check_close(gated_mlp(x, *fc1, *up, *fc2),
                    fc2->forward(at::silu(fc1->forward(x)) * up->forward(x)), 2e-2);
        const std::vector<at::Tensor> halves = both->forward(x).chunk(2, -1);
        check_close(fused_gated_mlp(x, *both, *fc2), fc2->forward(at::silu(halves[0]) * halves[1]),
                    2e-2);
      }
    }
  }
}

TEST_CASE("a Linear goes into 4 bits and back; it passes no gradient there") {
  at::manual_seed(9);
  const at::Tensor value = at::randn({32, 64}), x = at::randn({2, 3, 64});
  Linear linear(64, 32, true);
  linear.bias.set_data(at::randn({32}));
  linear.store(std::make_shared<StoredInt4>(quantize_int4(value)));
  CHECK(linear.stored().format() == "int4");
  CHECK(linear.stored().nbytes() == 32 * 64 / 512 * 288 + 4 * 32);
  CHECK(linear.named_parameters().size() == 1);
  CHECK(linear.named_buffers().size() == 2);
  CHECK(linear.is_quantized());
  CHECK(linear.device().is_cpu());
  CHECK(linear.dense_weight().equal(dequantize_int4(quantize_int4(value))));
  {
    const c10::NoGradGuard no_grad;
    CHECK(linear.forward(x).equal(forward_each(x, {&linear, &linear})[1]));
    Linear wide(64, 32, false);
    wide.store_int8(value);
    // Formats of two kinds are multiplied one by one.
    const std::vector<at::Tensor> mixed = forward_each(x, {&linear, &wide});
    CHECK(mixed[0].equal(linear.forward(x)));
    CHECK(mixed[1].equal(wide.forward(x)));
  }
  CHECK_THROWS(linear.forward(x.clone().requires_grad_()));
  linear.set_weight(value);
  CHECK_FALSE(linear.is_quantized());
  CHECK(linear.stored().format() == "float32");
  CHECK(linear.named_buffers().is_empty());
  CHECK(linear.forward(x).equal(at::linear(x, value, linear.bias)));
}

}  // namespace
}  // namespace vlm
