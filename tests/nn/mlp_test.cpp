// MLPs whose parts are multiplied together: what one layer after the other gives.
#include "vlm/nn/mlp.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/cpu/activations.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

std::shared_ptr<Linear> make_half(std::int64_t in, std::int64_t out, bool has_bias) {
  auto layer = std::make_shared<Linear>(in, out, has_bias);
  layer->weight.set_data(at::randn({out, in}).to(at::kBFloat16));
  if (has_bias) layer->bias.set_data(at::randn({out}));
  layer->product_dtype = at::kBFloat16;
  return layer;
}

TEST_CASE("MLPs: together as one after the other, for every edge of blocks and panels") {
  const c10::NoGradGuard no_grad;
  at::manual_seed(1);
  // Fewer rows than a panel; panels that are full and not; pieces of 128 and 256 rows of W with a
  // rest; more summands than are multiplied at once.
  for (const std::int64_t rows : {3, 64, 65, 130, 200}) {
    for (const auto& [in, between] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{6, 4}, {66, 258}, {40, 2100}}) {
      for (const bool has_bias : {false, true}) {
        INFO(concat(rows, " rows, ", in, " to ", between, ", bias ", has_bias));
        const auto fc1 = make_half(in, between, has_bias), up = make_half(in, between, has_bias);
        const auto fc2 = make_half(between, 10, has_bias);
        const at::Tensor x = at::randn({1, rows, in});
        const auto near = [&](const at::Tensor& found, const at::Tensor& hidden) {
          const at::Tensor wanted = fc2->forward(hidden);
          REQUIRE(found.sizes() == wanted.sizes());
          // An activation may be rounded the other way.
          CHECK((found - wanted).abs().max().item<double>() <
                2e-3 * wanted.abs().max().item<double>());
        };
        for (const Gelu kind : {Gelu::kErf, Gelu::kTanh, Gelu::kQuick}) {
          near(gelu_mlp(x, *fc1, *fc2, kind), gelu(fc1->forward(x), kind, at::kBFloat16));
        }
        near(gated_mlp(x, *fc1, *up, *fc2),
             gated_silu(fc1->forward(x), up->forward(x), at::kBFloat16));
      }
    }
  }
}

TEST_CASE("what a block adds: its layers' results, scaled, on top of what was there") {
  const c10::NoGradGuard no_grad;
  at::manual_seed(3);
  const auto fc1 = make_half(40, 66, true), up = make_half(40, 66, false);
  const auto fc2 = make_half(66, 50, true), wide = make_half(40, 50, false);
  for (const std::int64_t rows : {3, 64, 130}) {
    for (const at::Tensor& scale : {at::Tensor(), at::randn({50})}) {
      INFO(concat(rows, " rows, scaled ", scale.defined()));
      const at::Tensor x = at::randn({1, rows, 40}), before = at::randn({1, rows, 50});
      const auto near = [&](const at::Tensor& found, const at::Tensor& branch) {
        const at::Tensor wanted = before + (scale.defined() ? branch * scale : branch);
        REQUIRE(found.sizes() == wanted.sizes());
        CHECK((found - wanted).abs().max().item<double>() <
              1e-6 * wanted.abs().max().item<double>());
      };
      near(add_layer(before.clone(), x, *wide, scale), wide->forward(x));
      near(add_gelu_mlp(before.clone(), x, *fc1, *fc2, Gelu::kErf, scale),
           gelu_mlp(x, *fc1, *fc2, Gelu::kErf));
      if (!scale.defined()) {
        near(add_gated_mlp(before.clone(), x, *fc1, *up, *fc2), gated_mlp(x, *fc1, *up, *fc2));
      }
      const at::Tensor narrow = x.to(at::kBFloat16);
      CHECK(add_layer(before.clone(), narrow, *wide, scale)
                .equal(add_layer(before.clone(), narrow.to(at::kFloat), *wide, scale)));
      // Where it isn't contiguous, what was there stays.
      const at::Tensor strided = before.transpose(1, 2).contiguous().transpose(1, 2);
      near(add_layer(strided, x, *wide, scale), wide->forward(x));
      CHECK(strided.equal(before));
    }
  }
}

TEST_CASE("MLPs: exactly one layer after the other with float32 products, odd widths, gradients") {
  at::manual_seed(2);
  const auto check = [](const at::Tensor& x, const Linear& fc1, const Linear& up,
                        const Linear& fc2) {
    for (const Gelu kind : {Gelu::kErf, Gelu::kTanh, Gelu::kQuick}) {
      CHECK(gelu_mlp(x, fc1, fc2, kind)
                .equal(fc2.forward(gelu(fc1.forward(x), kind, fc1.product_dtype))));
    }
    CHECK(gated_mlp(x, fc1, up, fc2)
              .equal(fc2.forward(gated_silu(fc1.forward(x), up.forward(x), fc1.product_dtype))));
  };
  const auto fc1 = make_half(12, 33, true), up = make_half(12, 33, true);
  const auto fc2 = make_half(33, 12, true);
  const at::Tensor x = at::randn({80, 12});
  const at::Tensor leaf = at::randn({80, 12}).requires_grad_();
  check(leaf, *fc1, *up, *fc2);
  CHECK(gated_mlp(leaf, *fc1, *up, *fc2).requires_grad());
  const c10::NoGradGuard no_grad;
  check(x, *fc1, *up, *fc2);
  const auto exact1 = make_half(12, 34, true), exact2 = make_half(34, 12, true);
  exact1->product_dtype = at::kFloat;
  exact2->product_dtype = at::kFloat;
  check(x, *exact1, *exact1, *exact2);
}

}  // namespace
}  // namespace vlm
