// Operators, attention and autograd of the simulated GPU against the CPU: bit by bit, as both run
// the same kernels.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <functional>
#include <map>
#include <string>

#include "tests/support/catch.h"
#include "tests/support/simulated_cuda/device.h"

namespace vlm {
namespace {

using Tensors = std::vector<at::Tensor>;

// max |found − wanted| ≤ tolerance · max |wanted|
void check_near(const at::Tensor& found, const at::Tensor& wanted, double tolerance) {
  REQUIRE(found.device() == kGpu);
  REQUIRE(found.sizes() == wanted.sizes());
  const at::Tensor exact = wanted.to(at::kDouble);
  const double error = (found.cpu().to(at::kDouble) - exact).abs().max().item<double>();
  CHECK(error <= tolerance * exact.abs().max().item<double>());
}

void check_same(const at::Tensor& found, const at::Tensor& wanted) {
  REQUIRE(found.device() == kGpu);
  REQUIRE(found.scalar_type() == wanted.scalar_type());
  REQUIRE(found.sizes() == wanted.sizes());
  CHECK(found.strides() == wanted.strides());
  CHECK(at::equal(found.cpu().nan_to_num(7), wanted.nan_to_num(7)));
}

// x [4, 6], y [4, 6], square [6, 6], ids [4] below 4, mask [4, 6].
struct Inputs {
  at::Tensor x, y, square, ids, mask;
  at::Tensor picture, kernel;  // [2, 3, 8, 8], [5, 3, 4, 4]
};

Inputs make_inputs(const at::Device& device, at::ScalarType dtype) {
  const auto generator = at::detail::createCPUGenerator(3);
  const auto draw = [&](at::IntArrayRef shape) {
    return at::randn(shape, generator).to(dtype).to(device);
  };
  Inputs inputs;
  inputs.x = draw({4, 6});
  inputs.y = draw({4, 6});
  inputs.square = draw({6, 6});
  inputs.ids = at::tensor({2, 0, 3, 2}, at::kLong).to(device);
  inputs.mask = inputs.x > 0;
  inputs.picture = draw({2, 3, 8, 8});
  inputs.kernel = draw({5, 3, 4, 4});
  return inputs;
}

const std::map<std::string, std::function<Tensors(Inputs&)>> kOperators = {
    {"arithmetic",
     [](Inputs& t) -> Tensors {
       return {t.x + t.y, t.x * 2 - t.y / 3, -t.x, t.x.pow(2)};
     }},
    {"in place",
     [](Inputs& t) -> Tensors {
       t.x.add_(t.y).mul_(t.y).clamp_(-1, 1).addcmul_(t.y, t.y, 0.5).addcdiv_(t.y, t.y, 0.1);
       t.x.narrow(1, 2, 3).fill_(3);
       return {t.x};
     }},
    {"out",
     [](Inputs& t) -> Tensors {
       at::Tensor out = at::empty({0}, t.x.options());
       at::mul_out(out, t.x, t.y);
       at::Tensor columns = at::empty({6, 4}, t.x.options()).t();
       at::add_out(columns, t.x, t.y);
       return {out, columns};
     }},
    {"unary",
     [](Inputs& t) -> Tensors {
       return {t.x.exp(),         t.x.sin(),    t.x.cos(),       t.x.abs().sqrt(),
               t.x.abs().rsqrt(), t.x.square(), at::silu(t.x),   at::gelu(t.x, "tanh"),
               t.x.sigmoid(),     t.x.tanh(),   t.x.reciprocal()};
     }},
    {"products",
     [](Inputs& t) -> Tensors {
       at::Tensor sum = t.y.clone();
       sum.addmm_(t.x, t.square, 1, 0.5);
       return {t.x.mm(t.square),
               t.x.matmul(t.y.t()),
               at::linear(t.x, t.square, t.square.select(0, 0)),
               sum,
               at::bmm(t.x.view({2, 2, 6}), t.y.view({2, 6, 2})),
               t.x.mv(t.square.select(0, 1))};
     }},
    {"reductions",
     [](Inputs& t) -> Tensors {
       return {
           t.x.sum(),           t.x.mean(-1, true), t.x.amax(1),         std::get<1>(t.x.max(1)),
           t.x.argmax(-1),      t.x.norm(),         t.x.square().sum(0), t.x.logsumexp(1),
           t.x.std(1),          t.x.cumsum(1),      t.mask.any(),        t.mask.all(1),
           t.x.log_softmax(-1), t.x.softmax(-1)};
     }},
    {"order",
     [](Inputs& t) -> Tensors {
       const auto [values, places] = t.x.topk(3, 1);
       const auto [sorted, order] = t.x.sort(1);
       return {values, places, sorted, order,
               at::bucketize(t.x, std::get<0>(t.y.flatten().sort()))};
     }},
    {"indices",
     [](Inputs& t) -> Tensors {
       at::Tensor put = t.y.clone();
       put.index_put_({t.ids.narrow(0, 0, 2)}, t.x.narrow(0, 0, 2));
       at::Tensor masked = t.y.clone();
       masked.masked_scatter_(t.mask, t.x);
       at::Tensor copied = t.y.clone();
       copied.index_copy_(0, t.ids.narrow(0, 0, 2), t.x.narrow(0, 2, 2));
       return {t.x.index_select(0, t.ids),
               t.x.index({t.ids}),
               t.x.gather(1, t.ids.view({4, 1})),
               at::embedding(t.x, t.ids),
               put,
               masked,
               copied,
               t.x.index({t.mask}),
               t.x.masked_fill(t.mask, 2),
               t.mask.nonzero(),
               at::where(t.mask, t.x, t.y),
               t.y.scatter(1, t.ids.view({4, 1}), t.x),
               t.y.index_add(0, t.ids, t.x)};
     }},
    {"shapes",
     [](Inputs& t) -> Tensors {
       return {at::cat({t.x, t.y}, 1),
               at::stack({t.x, t.y}),
               t.x.t().contiguous(),
               t.x.reshape({3, 8}),
               t.x.expand({2, 4, 6}).contiguous(),
               at::constant_pad_nd(t.x, {1, 2}),
               t.x.flip(1),
               t.x.repeat({2, 1}),
               t.x.repeat_interleave(2, 1),
               t.x.split(2, 0)[1].clone(),
               t.x.permute({1, 0}).clone(),
               at::tril(t.square),
               t.x.roll(1, 0)};
     }},
    {"new",
     [](Inputs& t) -> Tensors {
       const auto whole = t.x.options().dtype(at::kLong);
       return {at::arange(5, whole),
               at::zeros({2, 3}, t.x.options()),
               at::full({3}, 2.5, t.x.options()),
               at::ones_like(t.x),
               at::linspace(0, 1, 7, t.x.options().dtype(at::kFloat)),
               at::eye(3, t.x.options()),
               at::tensor({1, 2, 3}, whole),
               t.x.new_zeros({2})};
     }},
    {"types",
     [](Inputs& t) -> Tensors {
       return {t.x.to(at::kBFloat16),
               t.x.to(at::kFloat),
               t.x.to(at::kByte),
               t.mask.to(at::kFloat),
               t.x.to(at::kFloat).view(at::kInt),
               t.x.to(at::kLong).bitwise_and(3)};
     }},
    {"norms",
     [](Inputs& t) -> Tensors {
       const at::Tensor weight = t.square.select(0, 0), bias = t.square.select(0, 1);
       return {at::layer_norm(t.x, {6}, weight, bias), at::rms_norm(t.x, {6}, weight, 1e-5)};
     }},
    {"convolution",
     [](Inputs& t) -> Tensors {
       return {at::conv2d(t.picture, t.kernel, {}, at::IntArrayRef{4}),
               at::pixel_shuffle(t.picture.repeat({1, 4, 1, 1}), 2)};
     }},
    {"lists",
     [](Inputs& t) -> Tensors {
       const Tensors sums = at::_foreach_add(Tensors{t.x, t.y}, Tensors{t.y, t.x}, 0.5);
       at::_foreach_mul_(sums, 3);
       const Tensors norms = at::_foreach_norm(sums);
       return {sums[0], sums[1], norms[0], norms[1]};
     }},
    {"loss", [](Inputs& t) -> Tensors {
       return {at::cross_entropy_loss(t.x, t.ids), at::nll_loss(t.x.log_softmax(1), t.ids)};
     }}};

TEST_CASE("every operator gives the CPU's result") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [name, call] : kOperators) {
      INFO(name << " in " << dtype);
      Inputs on_host = make_inputs(at::kCPU, dtype), on_device = make_inputs(kGpu, dtype);
      const Tensors wanted = call(on_host), found = call(on_device);
      REQUIRE(found.size() == wanted.size());
      for (std::size_t i = 0; i < found.size(); ++i) {
        INFO("result " << i);
        check_same(found[i], wanted[i]);
      }
    }
  }
}

struct Heads {
  std::int64_t query = 4, key = 4, rows = 8, columns = 8, head = 16;
};

// Query, key and value that require gradients, with what the attention gives and its gradients.
Tensors attend(const at::Device& device, at::ScalarType dtype, const Heads& heads, bool has_mask,
               bool is_causal) {
  const auto generator = at::detail::createCPUGenerator(9);
  const auto draw = [&](at::IntArrayRef shape) {
    return at::randn(shape, generator).to(dtype).to(device);
  };
  Tensors leaves = {draw({2, heads.query, heads.rows, heads.head}),
                    draw({2, heads.key, heads.columns, heads.head}),
                    draw({2, heads.key, heads.columns, heads.head})};
  for (at::Tensor& leaf : leaves) leaf.requires_grad_();
  std::optional<at::Tensor> mask;
  if (has_mask) mask = draw({2, 1, heads.rows, heads.columns}) > -1;
  const at::Tensor y = at::scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], mask, 0.0,
                                                        is_causal, {}, heads.query != heads.key);
  y.to(at::kFloat).square().sum().backward();
  return {y.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
}

void check_attention(at::ScalarType dtype, const Heads& heads, bool has_mask, bool is_causal,
                     const std::string& wanted) {
  INFO(wanted << ", " << dtype << ", mask " << has_mask << ", causal " << is_causal);
  Tensors found;
  const auto names =
      counts_of([&] { found = attend(kGpu, dtype, heads, has_mask, is_causal); }).by_name;
  for (const std::string kind : {"flash", "efficient"}) {
    const std::string name = "_scaled_dot_product_" + kind + "_attention";
    CHECK(names.count(name) == (kind == wanted ? 1U : 0U));
    CHECK(names.count(name + "_backward") == (kind == wanted ? 1U : 0U));
  }
  const Tensors exact = attend(at::kCPU, at::kFloat, heads, has_mask, is_causal);
  for (std::size_t i = 0; i < found.size(); ++i) {
    check_near(found[i], exact[i], dtype == at::kFloat ? 1e-5 : 0.03);
  }
}

TEST_CASE("attention is the one that CUDA would take") {
  check_attention(at::kBFloat16, {}, false, false, "flash");
  check_attention(at::kBFloat16, {}, false, true, "flash");
  check_attention(at::kBFloat16, {.key = 2}, false, true, "flash");
  check_attention(at::kBFloat16, {.head = 12}, false, false, "flash");  // padded to 16
  check_attention(at::kBFloat16, {.rows = 3}, false, true, "efficient");
  check_attention(at::kBFloat16, {}, true, false, "efficient");
  check_attention(at::kBFloat16, {.key = 2}, true, false, "math");
  check_attention(at::kFloat, {}, false, true, "efficient");
  check_attention(at::kFloat, {}, true, false, "efficient");
  check_attention(at::kFloat, {.key = 2}, false, true, "math");
  check_attention(at::kFloat, {.head = 6}, false, false, "math");
}

// The gradients of a small network with most kinds of layers.
Tensors differentiate(const at::Device& device) {
  Inputs inputs = make_inputs(device, at::kFloat);
  Tensors leaves = {inputs.x, inputs.square, inputs.kernel, inputs.picture, inputs.y};
  for (at::Tensor& leaf : leaves) leaf.requires_grad_();
  const at::Tensor rows = at::embedding(inputs.x, inputs.ids);
  const at::Tensor h = at::silu(at::linear(rows, inputs.square)) * at::rms_norm(inputs.y, {6});
  const at::Tensor patches = at::conv2d(inputs.picture, inputs.kernel, {}, at::IntArrayRef{4});
  const at::Tensor n =
      at::layer_norm(h, {6}, inputs.square.select(0, 0), inputs.square.select(0, 1));
  const at::Tensor loss = at::cross_entropy_loss(n.log_softmax(-1), inputs.ids) +
                          at::gelu(patches, "tanh").mean() + h.index_select(0, inputs.ids).norm();
  loss.backward();
  Tensors gradients;
  for (const at::Tensor& leaf : leaves) gradients.push_back(leaf.grad());
  return gradients;
}

TEST_CASE("gradients are the CPU's, and computed in a thread of the device") {
  const Tensors wanted = differentiate(at::kCPU), found = differentiate(kGpu);
  for (std::size_t i = 0; i < found.size(); ++i) {
    INFO("leaf " << i);
    check_near(found[i], wanted[i], 1e-6);
  }
}

TEST_CASE("a fused norm has the composition's gradients") {
  const auto run = [](const at::Device& device, bool is_fused) {
    Inputs inputs = make_inputs(device, at::kFloat);
    at::Tensor x = inputs.x.requires_grad_(),
               w = inputs.square.select(0, 2).clone().requires_grad_();
    const at::Tensor y = is_fused ? std::get<0>(at::_fused_rms_norm(x, {6}, w, 1e-5))
                                  : w * (x * at::rsqrt(x.square().mean(-1, true) + 1e-5));
    (y * inputs.y).sum().backward();
    return Tensors{y.detach(), x.grad(), w.grad()};
  };
  const Tensors wanted = run(at::kCPU, false), found = run(kGpu, true);
  for (std::size_t i = 0; i < found.size(); ++i) check_near(found[i], wanted[i], 1e-5);
}

}  // namespace
}  // namespace vlm
