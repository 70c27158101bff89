// Attention of packed rows on the GPU: one call for all segments where its flash attention takes
// them, with the values and gradients of a dense mask on the CPU.
#include "vlm/nn/packed_attention.h"

#include <ATen/ATen.h>

#include "tests/support/simulated_cuda/device.h"
#include "tests/support/tensors.h"
#include "vlm/nn/attention.h"

namespace vlm {
namespace {

constexpr std::int64_t kTokens = 70, kHeads = 6, kWidth = 16;

at::Tensor mask_of(const std::vector<Segment>& segments) {
  at::Tensor mask = at::zeros({1, 1, kTokens, kTokens}, at::kBool);
  for (const Segment& s : segments) {
    const at::Tensor rows = mask.narrow(2, s.begin, s.length);
    rows.narrow(3, s.begin, s.length).copy_(at::ones({s.length, s.length}, at::kBool).tril());
    rows.narrow(3, s.prefix_begin, s.prefix_length).fill_(true);
  }
  return mask;
}

// Numbers that bfloat16 holds, [1, heads, T, D].
at::Tensor coarse(std::int64_t heads) {
  return at::randn({1, kTokens, heads, kWidth})
      .to(at::kBFloat16)
      .to(at::kFloat)
      .transpose(1, 2)
      .requires_grad_();
}

TEST_CASE("segments of a packed row are one call of the GPU's flash attention") {
  at::manual_seed(5);
  const std::vector<std::vector<Segment>> layouts = {
      {{0, 1}, {1, 40}, {41, 29}},
      {{0, 20}, {20, 7, 0, 20}, {27, 1, 0, 20}, {28, 10}, {38, 30}, {68, 2, 38, 30}}};
  for (const auto& segments : layouts) {
    for (const std::int64_t kv_heads : {2, 6}) {
      INFO(segments.size() << " segments, " << kv_heads << " heads of keys");
      std::vector<at::Tensor> host = {coarse(kHeads), coarse(kv_heads), coarse(kv_heads)}, gpu;
      for (const at::Tensor& t : host) {
        gpu.push_back(t.detach().to(kGpu, at::kBFloat16).requires_grad_());
      }
      const at::Tensor dy = at::randn({1, kHeads, kTokens, kWidth}).to(at::kBFloat16);
      const at::Tensor wanted =
          grouped_attention(host[0], host[1], host[2], mask_of(segments), /*is_causal=*/false);
      wanted.backward(dy.to(at::kFloat));
      const auto row = std::make_shared<const PackedRow>(segments);
      at::Tensor found;
      const auto first = counts_of([&] { found = packed_attention(gpu[0], gpu[1], gpu[2], row); });
      CHECK(first.by_name.at("_flash_attention_forward") == 1);
      CHECK(first.waits == 0);
      CHECK(first.uploads == 1);
      check_close(found.to(at::kCPU, at::kFloat), wanted, 0.02);
      const auto back = counts_of([&] { found.backward(dy.to(kGpu)); });
      CHECK(back.by_name.at("_flash_attention_backward") == 1);
      for (std::size_t i = 0; i < 3; ++i) {
        check_close(gpu[i].grad().to(at::kCPU, at::kFloat), host[i].grad(), 0.05);
      }
      // The next layer has the places already.
      const auto second = counts_of([&] { packed_attention(gpu[0], gpu[1], gpu[2], row); });
      CHECK(second.uploads == 0);
      CHECK(second.operators <= 3);
    }
  }
}

TEST_CASE("segments of pictures are one call of the GPU's flash attention where lengths differ") {
  at::manual_seed(6);
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>{30, 25, 15}, {35, 35}, {1, 69}}) {
    const bool is_one = lengths[0] != lengths[1];
    std::vector<at::Tensor> host = {coarse(kHeads), coarse(kHeads), coarse(kHeads)}, gpu;
    for (const at::Tensor& t : host) {
      gpu.push_back(t.detach().to(kGpu, at::kBFloat16).requires_grad_());
    }
    const SegmentLengths segments(lengths);
    const at::Tensor wanted = segment_attention({host[0], host[1], host[2]}, segments);
    at::Tensor found;
    const auto cost = counts_of([&] {
      found = segment_attention({gpu[0], gpu[1], gpu[2]}, segments);
    });
    CHECK(cost.by_name.count("_flash_attention_forward") == (is_one ? 1 : 0));
    CHECK(cost.waits == 0);
    check_close(found.to(at::kCPU, at::kFloat), wanted, 0.02);
    const at::Tensor dy = at::randn(wanted.sizes()).to(at::kBFloat16);
    wanted.backward(dy.to(at::kFloat));
    found.backward(dy.to(kGpu));
    for (std::size_t i = 0; i < 3; ++i) {
      check_close(gpu[i].grad().to(at::kCPU, at::kFloat), host[i].grad(), 0.05);
    }
  }
}

TEST_CASE("where flash attention can't take a packed row its segments are calls of their own") {
  const std::vector<Segment> segments = {{0, 30}, {30, 40}};
  const auto row = std::make_shared<const PackedRow>(segments);
  const at::Tensor q = coarse(kHeads).detach().to(kGpu);  // float32
  at::Tensor found;
  const auto cost = counts_of([&] { found = packed_attention(q, q, q, row); });
  CHECK(cost.by_name.count("_flash_attention_forward") == 0);
  const at::Tensor host = q.cpu();
  check_close(found.cpu(), grouped_attention(host, host, host, mask_of(segments), false), 1e-5);
}

}  // namespace
}  // namespace vlm
