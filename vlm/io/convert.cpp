#include "vlm/io/convert.h"

#include <ATen/ops/empty.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "vlm/io/parallel.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceElements = 1 << 20;
constexpr std::uintptr_t kHugePageBytes = 2 << 20;

struct Piece {
  std::size_t conversion;
  std::int64_t begin, count;  // elements
};

std::vector<Piece> cut(const std::vector<Conversion>& conversions) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < conversions.size(); ++i) {
    const std::int64_t total = conversions[i].to.numel();
    for (std::int64_t begin = 0; begin < total; begin += kPieceElements) {
      pieces.push_back({i, begin, std::min(kPieceElements, total - begin)});
    }
  }
  return pieces;
}

// Calls madvise on the whole pages of `page` bytes inside a tensor. It is advice: a kernel that
// doesn't take it changes nothing but the memory used.
void advise(const at::Tensor& tensor, std::uintptr_t page, int advice) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr());
  const std::uintptr_t begin = (address + page - 1) / page * page;
  const std::uintptr_t end = (address + tensor.nbytes()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

void convert_mapped(const std::vector<Conversion>& conversions) {
  const std::vector<Piece> pieces = cut(conversions);
  run_pieces(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    const Conversion& item = conversions[piece.conversion];
    const at::Tensor from = item.from.view({-1}).narrow(0, piece.begin, piece.count);
    item.to.view({-1}).narrow(0, piece.begin, piece.count).copy_(from);
    drop_pages(from);
  });
}

void drop_pages(const at::Tensor& mapped) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  advise(mapped, page, MADV_DONTNEED);
}

at::Tensor empty_weight(at::IntArrayRef shape, at::ScalarType dtype) {
  at::Tensor weight = at::empty(shape, dtype);
  advise(weight, kHugePageBytes, MADV_HUGEPAGE);
  return weight;
}

}  // namespace vlm
