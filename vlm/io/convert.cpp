#include "vlm/io/convert.h"

#include <ATen/ops/empty.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>

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

struct AddressRange {
  std::uintptr_t begin, end;
};

// The whole pages of `page` bytes inside a tensor.
AddressRange pages_of(const at::Tensor& tensor, std::uintptr_t page) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr());
  const std::uintptr_t end = (address + tensor.nbytes()) / page * page;
  return {std::min((address + page - 1) / page * page, end), end};
}

// It is advice: a kernel that doesn't take it changes nothing but the memory used.
void advise(AddressRange range, int advice) {
  if (range.begin < range.end) {
    ::madvise(reinterpret_cast<void*>(range.begin), range.end - range.begin, advice);
  }
}

std::uintptr_t page_bytes() {
  static const auto bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
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
  advise(pages_of(mapped, page_bytes()), MADV_DONTNEED);
}

void drop_unchanged_pages(const NamedTensors& tensors) {
  // A word a page (Linux, Documentation/admin-guide/mm/pagemap.rst).
  constexpr std::uint64_t kIsOfFile = 1ULL << 61, kIsPresent = 1ULL << 63;
  std::ifstream map;
  map.rdbuf()->pubsetbuf(nullptr, 0);  // the file gives whole words only
  map.open("/proc/self/pagemap", std::ios::binary);
  const std::uintptr_t page = page_bytes();
  std::vector<std::uint64_t> words;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.is_cpu() || !tensor.is_contiguous()) continue;
    const AddressRange range = pages_of(tensor, page);
    words.resize((range.end - range.begin) / page);
    map.seekg(static_cast<std::streamoff>(range.begin / page * sizeof(std::uint64_t)));
    map.read(reinterpret_cast<char*>(words.data()),
             static_cast<std::streamsize>(words.size() * sizeof(std::uint64_t)));
    if (!map) return;
    const auto is_unchanged = [&](std::size_t i) {
      return (words[i] & (kIsOfFile | kIsPresent)) == (kIsOfFile | kIsPresent);
    };
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::size_t first = i;
      while (i < words.size() && is_unchanged(i)) ++i;
      advise({range.begin + first * page, range.begin + i * page}, MADV_DONTNEED);
    }
  }
}

at::Tensor empty_weight(at::IntArrayRef shape, at::ScalarType dtype) {
  at::Tensor weight = at::empty(shape, dtype);
  advise(pages_of(weight, kHugePageBytes), MADV_HUGEPAGE);
  return weight;
}

}  // namespace vlm
