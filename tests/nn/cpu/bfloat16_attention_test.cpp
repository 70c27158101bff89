// Attention with products in bfloat16: LibTorch's in float32, up to rounding.
#include "vlm/nn/cpu/bfloat16/bfloat16_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <limits>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

struct Shape {
  std::int64_t batch, heads, kv_heads, queries, keys, depth;
};

bool is_here() {
  const bool can = can_attend_in_bfloat16(at::empty({1, 1, 1, 8}));
  if (!can) WARN("this processor has no bfloat16 products: not tested");
  return can;
}

// Values that bfloat16 holds exactly, in memory [B, T, H, D] as projections leave them.
at::Tensor random_heads(std::int64_t batch, std::int64_t heads, std::int64_t rows,
                        std::int64_t depth) {
  return at::randn({batch, rows, heads, depth}).to(at::kBFloat16).to(at::kFloat).transpose(1, 2);
}

at::Tensor causal_mask(std::int64_t queries, std::int64_t keys) {
  return at::ones({1, 1, queries, keys}, at::kBool).tril(keys - queries);
}

TEST_CASE("bfloat16 attention: as in float32, for every edge of its blocks") {
  if (!is_here()) return;
  const c10::NoGradGuard no_grad;
  at::manual_seed(1);
  // Queries and keys around 64 and 512, one, odd; groups; heads wider and narrower than a panel.
  const std::vector<Shape> shapes = {{1, 2, 2, 64, 64, 64},    {2, 4, 2, 65, 513, 64},
                                     {1, 9, 3, 130, 1030, 16}, {2, 3, 1, 1, 7, 8},
                                     {1, 2, 2, 200, 200, 72},  {1, 1, 1, 63, 575, 130}};
  for (const Shape& shape : shapes) {
    const at::Tensor q = random_heads(shape.batch, shape.heads, shape.queries, shape.depth);
    const at::Tensor k = random_heads(shape.batch, shape.kv_heads, shape.keys, shape.depth);
    const at::Tensor v = random_heads(shape.batch, shape.kv_heads, shape.keys, shape.depth);
    for (const bool is_causal : {false, true}) {
      INFO(concat(shape.queries, " queries, ", shape.keys, " keys, causal ", is_causal));
      const at::Tensor mask = is_causal ? causal_mask(shape.queries, shape.keys) : at::Tensor();
      const at::Tensor wanted = grouped_attention(q, k, v, mask, false);
      const at::Tensor found = bfloat16_attention(q, k, v, is_causal);
      REQUIRE(found.sizes() == wanted.sizes());
      CHECK(found.transpose(1, 2).is_contiguous());
      // The softmax's weights are rounded, to 2⁻⁹ of each.
      CHECK((found - wanted).abs().max().item<double>() < 4e-3 * v.abs().max().item<double>());
      CHECK((found - wanted).abs().mean().item<double>() < 1e-3);
    }
  }
}

TEST_CASE("bfloat16 attention: what is no number shows where LibTorch shows it") {
  if (!is_here()) return;
  const c10::NoGradGuard no_grad;
  at::manual_seed(9);
  const float none = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor q = random_heads(1, 2, 70, 32), k = random_heads(1, 1, 600, 32);
  const at::Tensor v = random_heads(1, 1, 600, 32);
  for (const std::int64_t row : {0, 15, 64, 69}) {
    const at::Tensor odd = q.clone();
    odd[0][1][row][3] = none;
    const at::Tensor found = bfloat16_attention(odd, k, v, false);
    CHECK(found.isnan().equal(grouped_attention(odd, k, v, {}, false).isnan()));
    CHECK(found.isnan().sum().item<std::int64_t>() == 32);
  }
  for (const std::int64_t row : {0, 511, 599}) {
    const at::Tensor odd = k.clone();
    odd[0][0][row][3] = none;
    CHECK(bfloat16_attention(q, odd, v, false).isnan().all().item<bool>());
  }
}

TEST_CASE("bfloat16 attention: large scores, any strides, the same with one thread") {
  if (!is_here()) return;
  const c10::NoGradGuard no_grad;
  at::manual_seed(2);
  const at::Tensor q = random_heads(1, 4, 150, 32) * 64, k = random_heads(1, 2, 600, 32) * 64;
  const at::Tensor v = random_heads(1, 2, 600, 32);
  const at::Tensor found = bfloat16_attention(q, k, v, false);
  check_close(found, grouped_attention(q, k, v, {}, false), 1e-2);
  CHECK(bfloat16_attention(q.contiguous(), k.transpose(2, 3).contiguous().transpose(2, 3), v, false)
            .equal(found));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  CHECK(bfloat16_attention(q, k, v, false).equal(found));
  at::set_num_threads(threads);
}

TEST_CASE("attention is multiplied in bfloat16 only where that is asked for and pays") {
  const c10::NoGradGuard no_grad;
  at::manual_seed(3);
  const at::Tensor q = random_heads(1, 2, 256, 16), k = random_heads(1, 2, 256, 16);
  const at::Tensor exact = grouped_attention(q, k, k, {}, true);
  const at::Tensor rounded = grouped_attention(q, k, k, {}, true, at::kBFloat16);
  CHECK(rounded.equal(exact) == !can_attend_in_bfloat16(q));
  check_close(rounded, exact, 1e-2);
  const auto both = [](const at::Tensor& few, const at::Tensor& mask) {
    return grouped_attention(few, few, few, mask, false, at::kBFloat16)
        .equal(grouped_attention(few, few, few, mask, false));
  };
  CHECK(both(q.narrow(2, 0, 64), {}));
  CHECK(both(q, causal_mask(256, 256)));
  const c10::AutoGradMode recording(true);
  CHECK(both(q, {}));
}

std::shared_ptr<Linear> make_projection(std::int64_t in, std::int64_t out) {
  auto layer = std::make_shared<Linear>(in, out, true);
  layer->weight.set_data(at::randn({out, in}).mul_(0.2).to(at::kBFloat16));
  layer->bias.set_data(at::randn({out}));
  layer->product_dtype = at::kBFloat16;
  return layer;
}

TEST_CASE("an encoder's attention hands on what its parts give, rounded to bfloat16") {
  if (!is_here()) return;
  const c10::NoGradGuard no_grad;
  at::manual_seed(4);
  constexpr std::int64_t kHeads = 3, kWidth = 48;
  const auto q = make_projection(40, kWidth), k = make_projection(40, kWidth);
  const auto v = make_projection(40, kWidth), all = make_projection(40, 3 * kWidth);
  for (const std::int64_t rows : {20, 130, 600}) {
    INFO(concat(rows, " rows"));
    const at::Tensor x = at::randn({2, rows, 40});
    const auto attend = [&](const std::vector<at::Tensor>& each, const at::Tensor& mask) {
      const auto heads = [&](const at::Tensor& t) {
        return t.view({2, rows, kHeads, -1}).transpose(1, 2);
      };
      return grouped_attention(heads(each[0]), heads(each[1]), heads(each[2]), mask, false,
                               at::kBFloat16)
          .transpose(1, 2)
          .flatten(2);
    };
    const auto check = [&](const at::Tensor& found, const at::Tensor& wanted, bool is_narrow) {
      CHECK(found.scalar_type() == (is_narrow ? at::kBFloat16 : at::kFloat));
      CHECK(found.equal(wanted.to(found.scalar_type())));
    };
    const bool is_narrow = rows >= 128;
    check(self_attention(x, {q.get(), k.get(), v.get(), kHeads}, {}),
          attend(forward_each(x, {q.get(), k.get(), v.get()}), {}), is_narrow);
    check(self_attention(x, {all.get(), nullptr, nullptr, kHeads}, {}),
          attend(all->forward(x).chunk(3, -1), {}), is_narrow);
    const at::Tensor mask = at::rand({2, 1, 1, rows}) > 0.3;
    check(self_attention(x, {q.get(), k.get(), v.get(), kHeads}, mask),
          attend(forward_each(x, {q.get(), k.get(), v.get()}), mask), false);
  }
}

}  // namespace
}  // namespace vlm
