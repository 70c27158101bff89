#include "vlm/nn/cpu/kv_rows.h"

#include <ATen/ops/empty.h>

#include "vlm/io/parallel.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceRows = 256;

VLM_CLONES void encode_in_bytes(const float* from, std::int64_t rows, std::int64_t depth,
                                std::byte* to) {
  const std::int64_t width = held_width(depth, at::kChar);
  for (std::int64_t i = 0; i < rows; ++i) {
    HeldBytes::store(from + i * depth, depth, to + i * width);
  }
}

VLM_CLONES void decode_bytes(const std::byte* from, std::int64_t rows, std::int64_t depth,
                             float* to) {
  const std::int64_t width = held_width(depth, at::kChar);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::byte* row = from + i * width;
    const float scale = HeldBytes::scale(row, depth);
    for (std::int64_t d = 0; d < depth; ++d) {
      to[i * depth + d] =
          scale * static_cast<float>(static_cast<std::int8_t>(row[HeldBytes::place(d, depth)]));
    }
  }
}

template <typename Convert>
void over_rows(std::int64_t rows, const Convert& convert) {
  run_pieces(divide_up(rows, kPieceRows), [&](std::int64_t i) {
    const std::int64_t begin = i * kPieceRows;
    convert(begin, std::min(kPieceRows, rows - begin));
  });
}

std::vector<std::int64_t> with_width(const at::Tensor& t, std::int64_t width) {
  std::vector<std::int64_t> sizes = t.sizes().vec();
  sizes.back() = width;
  return sizes;
}

}  // namespace

std::int64_t held_width(std::int64_t depth, at::ScalarType held) {
  return held == at::kChar ? depth + static_cast<std::int64_t>(sizeof(float)) : depth;
}

at::Tensor encode_rows(const at::Tensor& x, at::ScalarType held) {
  if (held != at::kChar) return x.to(held);
  const std::int64_t depth = x.size(-1), width = held_width(depth, held);
  const at::Tensor from = x.contiguous();
  at::Tensor to = at::empty(with_width(x, width), x.options().dtype(held));
  const auto* source = from.const_data_ptr<float>();
  auto* target = static_cast<std::byte*>(to.mutable_data_ptr());
  over_rows(x.numel() / depth, [&](std::int64_t begin, std::int64_t count) {
    encode_in_bytes(source + begin * depth, count, depth, target + begin * width);
  });
  return to;
}

at::Tensor decode_rows(const at::Tensor& held, std::int64_t depth) {
  if (held.scalar_type() != at::kChar) return held.to(at::kFloat);
  const std::int64_t width = held.size(-1);
  const at::Tensor from = held.contiguous();
  at::Tensor to = at::empty(with_width(held, depth), held.options().dtype(at::kFloat));
  const auto* source = static_cast<const std::byte*>(from.const_data_ptr());
  auto* target = to.mutable_data_ptr<float>();
  over_rows(held.numel() / width, [&](std::int64_t begin, std::int64_t count) {
    decode_bytes(source + begin * width, count, depth, target + begin * depth);
  });
  return to;
}

}  // namespace vlm
