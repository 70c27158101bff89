// Rows of keys and values in fewer bits: nearest codes, and what has none.
#include "vlm/nn/cpu/kv_rows.h"

#include <ATen/ATen.h>

#include <limits>

#include "tests/support/tensors.h"

namespace vlm {
namespace {

TEST_CASE("rows of a cache: float32 is itself, bfloat16 is LibTorch's") {
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 3, 5, 16});
  CHECK(encode_rows(x, at::kFloat).is_same(x));
  CHECK(encode_rows(x, at::kBFloat16).equal(x.to(at::kBFloat16)));
  CHECK(decode_rows(x.to(at::kBFloat16), 16).equal(x.to(at::kBFloat16).to(at::kFloat)));
}

TEST_CASE("rows of a cache in 8 bits: every number within half a step of its row") {
  at::manual_seed(2);
  for (const std::int64_t depth : {16, 20, 64, 80}) {
    const at::Tensor scales = at::pow(10.0, at::randn({3, 2, 300, 1}));
    const at::Tensor x = (at::randn({3, 2, 300, depth}) * scales).transpose(1, 2);
    const at::Tensor held = encode_rows(x, at::kChar);
    CHECK(held.size(-1) == held_width(depth, at::kChar));
    const at::Tensor back = decode_rows(held, depth);
    const at::Tensor step = x.abs().amax(-1, true) / 127;
    CHECK(((back - x).abs() <= step * 0.5001F).all().item<bool>());
    // The largest of a row is exact up to rounding, and codes stand for themselves.
    check_close(back.abs().amax(-1) / step.squeeze(-1), at::full({3, 300, 2}, 127.0F), 1e-4);
    CHECK(encode_rows(back, at::kChar).narrow(-1, 0, depth).equal(held.narrow(-1, 0, depth)));
  }
}

TEST_CASE("rows of a cache in 8 bits: zeros stay zeros, NaN and infinity are never hidden") {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  at::Tensor x = at::ones({5, 16});
  x[0].zero_();
  x[1].fill_(1e-38F);
  x[2][7] = inf;
  x[3][0] = nan;
  x[4][15] = -inf;
  const at::Tensor back = decode_rows(encode_rows(x, at::kChar), 16);
  CHECK(back[0].eq(0).all().item<bool>());
  CHECK(back[1].abs().le(1e-38F).all().item<bool>());
  for (const int row : {2, 3, 4}) CHECK(back[row].isnan().all().item<bool>());
}

}  // namespace
}  // namespace vlm
