// Products of a few rows of x with weights stored in few bits, as in decoding: the time goes into
// reading the weights, which are read once for all rows.
//
//   x [M, K], weights [N, K] of each map ─► y [M, N] of each
//
// While some rows of weights are multiplied, the next ones are prefetched from memory into the
// second-level cache. (The first-level cache has room for too few requests at a time.)
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {

constexpr std::int64_t kRowsAhead = 8;  // rows of W that are prefetched

constexpr std::int64_t kLeastPiece = 16 * 1024;  // weights of a thread's piece: an eighth of its
constexpr std::int64_t kMostPiece = 128 * 1024;  // share, within these bounds

// Rows of W in a thread's piece, for matrices with `weights` weights in all.
inline std::int64_t piece_rows(std::int64_t weights, std::int64_t k) {
  const std::int64_t piece =
      std::clamp(weights / (8 * at::get_num_threads()), kLeastPiece, kMostPiece);
  return std::max<std::int64_t>(piece / k / 4 * 4, 4);
}

// Calls columns(product, begin, end), in threads, so that columns 0 … product.n of each y are
// computed. A Product has members `n` and `k`.
template <typename Product>
void run_columns(const std::vector<Product>& products,
                 void (*columns)(const Product&, std::int64_t, std::int64_t)) {
  struct Piece {
    const Product* product;
    std::int64_t begin, end;  // rows of W
  };
  std::int64_t weights = 0;
  for (const Product& product : products) weights += product.n * product.k;
  std::vector<Piece> pieces;
  for (const Product& product : products) {
    const std::int64_t step = piece_rows(weights, product.k);
    for (std::int64_t begin = 0; begin < product.n; begin += step) {
      pieces.push_back({&product, begin, std::min(begin + step, product.n)});
    }
  }
  run_pieces(std::ssize(pieces), [&](std::int64_t i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    columns(*piece.product, piece.begin, piece.end);
  });
}

// A product of float32 rows with stored weights. `Stored` says how weights are read: the type
// `Value`, and load(), which gives kVectors vectors of floats at a time. x is arranged in the order
// in which load() gives them.
template <typename Stored>
struct FewRows {
  const float* x;                   // [rows, k], arranged
  const typename Stored::Value* w;  // [n, k]
  const float* scales;              // [n], or null
  const float* bias;                // [n], or null
  float* y;                         // [rows, n]
  std::int64_t rows, k, n;
};

template <typename Stored>
constexpr std::int64_t step_of = Stored::kVectors* kLanes;

// The sums of M rows of x with N rows of w.
template <int M, int N, typename Stored>
VLM_INLINE void multiply_tile(const FewRows<Stored>& p, std::int64_t m, std::int64_t n) {
  constexpr int kVectors = Stored::kVectors;
  Floats sums[M * N] = {};
  const std::int64_t whole = p.k / step_of<Stored> * step_of<Stored>;
  const float* x = p.x + m * p.k;
  const typename Stored::Value* w = p.w + n * p.k;
  for (std::int64_t k = 0; k < whole; k += step_of<Stored>) {
    Floats weights[N][kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      Stored::load(w + j * p.k + k, weights[j]);
      __builtin_prefetch(w + (j + kRowsAhead) * p.k + k, 0, kSecondCache);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const Floats values = load_lanes<Floats>(x + i * p.k + k + v * kLanes);
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) sums[i * N + j] += values * weights[j][v];
      }
    }
  }
  const Floats totals = add_lanes(sums);
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      float sum = totals[(i * N + j) * kLanes / (M * N)];
      for (std::int64_t k = whole; k < p.k; ++k) {
        sum += x[i * p.k + k] * Stored::widen(w[j * p.k + k]);
      }
      p.y[(m + i) * p.n + n + j] =
          (p.scales ? sum * p.scales[n + j] : sum) + (p.bias ? p.bias[n + j] : 0.0F);
    }
  }
}

template <int N, typename Stored>
VLM_INLINE void multiply_rows(const FewRows<Stored>& p, std::int64_t n) {
  std::int64_t m = 0;
  for (; m + 4 <= p.rows; m += 4) multiply_tile<4, N>(p, m, n);
  for (; m + 2 <= p.rows; m += 2) multiply_tile<2, N>(p, m, n);
  for (; m < p.rows; ++m) multiply_tile<1, N>(p, m, n);
}

// Prefetches the first rows of W that a thread will read.
template <typename Value>
VLM_INLINE void prefetch_rows(const Value* w, std::int64_t k) {
  constexpr std::int64_t kLine = 64 / sizeof(Value);
  for (std::int64_t i = 0; i < kRowsAhead * k; i += kLine) {
    __builtin_prefetch(w + i, 0, kSecondCache);
  }
}

// Columns `begin` … `end` of y, for all rows of x.
template <typename Stored>
VLM_INLINE void multiply_few_rows(const FewRows<Stored>& p, std::int64_t begin, std::int64_t end) {
  prefetch_rows(p.w + begin * p.k, p.k);
  std::int64_t n = begin;
  for (; n + 4 <= end; n += 4) multiply_rows<4>(p, n);
  for (; n < end; ++n) multiply_rows<1>(p, n);
}

}  // namespace vlm
