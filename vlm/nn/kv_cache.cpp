#include "vlm/nn/kv_cache.h"

#include <ATen/ops/empty.h>

namespace vlm {

KvCache::KvCache(const KvCacheShape& shape, std::int64_t batch, std::int64_t capacity,
                 const at::TensorOptions& options)
    : capacity_(capacity) {
  const std::vector<std::int64_t> size = {batch, shape.kv_heads, capacity, shape.head_dim};
  for (std::int64_t i = 0; i < shape.layers; ++i) {
    layers_.emplace_back(at::empty(size, options), at::empty(size, options));
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::append(std::int64_t layer, const at::Tensor& k,
                                                  const at::Tensor& v) {
  auto& [keys, values] = layers_.at(static_cast<std::size_t>(layer));
  const std::int64_t tokens = k.size(2);
  TORCH_CHECK(length_ + tokens <= capacity_, "KV cache holds ", capacity_, " tokens, got ",
              length_ + tokens);
  keys.narrow(2, length_, tokens).copy_(k);
  values.narrow(2, length_, tokens).copy_(v);
  return {keys.narrow(2, 0, length_ + tokens), values.narrow(2, 0, length_ + tokens)};
}

void KvCache::select_rows(const at::Tensor& rows) {
  for (auto& [keys, values] : layers_) {
    keys = keys.index_select(0, rows);
    values = values.index_select(0, rows);
  }
}

}  // namespace vlm
