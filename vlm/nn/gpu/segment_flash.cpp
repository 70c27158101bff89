#include "vlm/nn/gpu/segment_flash.h"

#include <ATen/SDPBackend.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <optional>

namespace vlm {
namespace {

constexpr std::int64_t kHeadStep = 8;  // of a head's numbers, as flash attention asks for

}  // namespace

SegmentPlaces place_segments(const std::vector<std::int64_t>& lengths, at::Device device) {
  SegmentPlaces places;
  std::vector<int> begins = {0};
  for (const std::int64_t length : lengths) {
    begins.push_back(begins.back() + static_cast<int>(length));
    places.most_queries = std::max(places.most_queries, length);
  }
  places.most_keys = places.most_queries;
  places.queries = at::tensor(begins, at::kInt);
  if (!device.is_cpu()) {
    places.queries = places.queries.pin_memory().to(device, /*non_blocking=*/true);
  }
  places.keys = places.queries;
  return places;
}

// Where cuDNN's is preferred for one length, LibTorch's own is there, too.
bool can_attend_in_segments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  if (q.is_cpu() || q.size(3) % kHeadStep != 0) return false;
  const auto chosen = static_cast<at::SDPBackend>(
      at::_fused_sdp_choice(q, k, v, std::nullopt, 0.0, /*is_causal=*/true, std::nullopt,
                            /*enable_gqa=*/q.size(1) != k.size(1)));
  return chosen == at::SDPBackend::flash_attention || chosen == at::SDPBackend::cudnn_attention;
}

at::Tensor attend_in_segments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const SegmentPlaces& places, bool is_causal) {
  const auto by_token = [](const at::Tensor& t) { return t.squeeze(0).transpose(0, 1); };
  const auto seen = [&](const at::Tensor& t) {  // [S, K, D]
    return places.seen.defined() ? by_token(t).index_select(0, places.seen) : by_token(t);
  };
  const at::Tensor out = std::get<0>(at::_flash_attention_forward(
      by_token(q), seen(k), seen(v), places.queries, places.keys, places.most_queries,
      places.most_keys, 0.0, is_causal, /*return_debug_mask=*/false));
  return out.transpose(0, 1).unsqueeze(0);
}

}  // namespace vlm
