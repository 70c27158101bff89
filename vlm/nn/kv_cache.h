// Keys and values of the tokens seen so far, preallocated: appending copies the new rows only.
//
//   per layer k, v [B, K, capacity, D]; views of the first `length` positions go to attention.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace vlm {

struct KvCacheShape {
  std::int64_t layers = 0;
  std::int64_t kv_heads = 0;  // K
  std::int64_t head_dim = 0;  // D
};

class KvCache {
 public:
  KvCache(const KvCacheShape& shape, std::int64_t batch, std::int64_t capacity,
          const at::TensorOptions& options);

  // Writes k, v [B, K, T, D] behind what the layer holds; returns views of everything, [B, K,
  // length + T, D]. The layers of one step append the same T, then advance(T) is called once.
  std::pair<at::Tensor, at::Tensor> append(std::int64_t layer, const at::Tensor& k,
                                           const at::Tensor& v);
  void advance(std::int64_t tokens) { length_ += tokens; }

  // Row i becomes what row rows[i] was; the number of rows may change (finished rows leave, beams
  // move).
  void select_rows(const at::Tensor& rows);

  std::int64_t length() const { return length_; }
  std::int64_t capacity() const { return capacity_; }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> layers_;
  std::int64_t length_ = 0;
  std::int64_t capacity_ = 0;
};

}  // namespace vlm
