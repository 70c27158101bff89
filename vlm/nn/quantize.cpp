#include "vlm/nn/quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/clones.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceValues = 1 << 20;  // quantized or expanded at a time on a CPU
// The same on a GPU. It takes 22 MB, six bytes a value, beside the result: enough to be busy, and a
// sixth of what a block of a 2B model is expanded to.
constexpr std::int64_t kGpuPiece = 7 << 19;
constexpr std::int64_t kLastingBytes = 64 << 10;
constexpr double kLeastScale = 1e-38;  // keeps a block of zeros from dividing by zero

constexpr float kNf4[16] = {-1.0F,
                            -0.6961928009986877F,
                            -0.5250730514526367F,
                            -0.39491748809814453F,
                            -0.28444138169288635F,
                            -0.18477343022823334F,
                            -0.09105003625154495F,
                            0.0F,
                            0.07958029955625534F,
                            0.16093020141124725F,
                            0.24611230194568634F,
                            0.33791524171829224F,
                            0.44070982933044434F,
                            0.5626170039176941F,
                            0.7229568362236023F,
                            1.0F};

// Memory of its own from the system for bytes that stay: in the heap they would lie scattered
// between the holes that temporaries leave, which together are several times their size.
at::Tensor empty_lasting(std::int64_t bytes, const at::TensorOptions& options) {
  if (!options.device().is_cpu() || bytes < kLastingBytes) return at::empty({bytes}, options);
  const auto size = static_cast<std::size_t>(bytes);
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK(memory != MAP_FAILED, "no memory for ", bytes, " bytes of weights");
  return at::from_blob(
      memory, {bytes}, [size](void* begin) { ::munmap(begin, size); }, options);
}

std::int64_t ceil_divide(std::int64_t count, std::int64_t size) {
  return (count + size - 1) / size;
}

// [n] → [blocks, size], the last block filled up with zeros.
at::Tensor to_blocks(const at::Tensor& values, std::int64_t size) {
  const std::int64_t padding = ceil_divide(values.numel(), size) * size - values.numel();
  return (padding ? at::constant_pad_nd(values, {0, padding}) : values).view({-1, size});
}

// Index of the level nearest to each value over its block's scale: [blocks, size] uint8, and the
// scales [blocks].
std::pair<at::Tensor, at::Tensor> find_levels(const at::Tensor& blocks, const at::Tensor& levels) {
  const at::Tensor scales = at::amax(at::abs(blocks), {1});
  const at::Tensor unit =
      (blocks * scales.clamp_min(kLeastScale).reciprocal().unsqueeze(1)).clamp_(-1, 1);
  const std::int64_t last = levels.numel() - 1;
  const at::Tensor middles = (levels.narrow(0, 0, last) + levels.narrow(0, 1, last)) / 2;
  return {at::bucketize(unit, middles, /*out_int32=*/true).to(at::kByte), scales};
}

// The signed or unsigned magnitudes of one exponent: the middles of equal parts of [0.1, 1].
at::Tensor dynamic_part(std::int64_t parts, int exponent) {
  const at::Tensor edges = at::linspace(0.1, 1, parts + 1, at::kFloat);
  const at::Tensor middles = (edges.narrow(0, 0, parts) + edges.narrow(0, 1, parts)) / 2;
  static constexpr double kTens[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
  return middles * kTens[exponent];
}

at::Tensor make_dynamic_levels(bool is_signed) {
  std::vector<at::Tensor> found = {at::zeros({1}, at::kFloat), at::tensor({1.0F})};
  for (int exponent = 0; exponent < 7; ++exponent) {
    const at::Tensor part = dynamic_part(std::int64_t{is_signed ? 1 : 2} << exponent, exponent);
    found.push_back(part);
    if (is_signed) found.push_back(-part);
  }
  return std::get<0>(at::cat(found).sort());
}

// Values of whole blocks, [blocks · 64], from codes: one table of 16 products a block.
VLM_CLONES void expand_blocks(const std::uint8_t* codes, const float* scales, float* out,
                              std::int64_t blocks) {
  for (std::int64_t block = 0; block < blocks; ++block) {
    float table[16];
    for (int level = 0; level < 16; ++level) table[level] = kNf4[level] * scales[block];
    const std::uint8_t* pair = codes + block * (kNf4Block / 2);
    float* to = out + block * kNf4Block;
    for (int i = 0; i < kNf4Block / 2; ++i) {
      to[2 * i] = table[pair[i] >> 4];
      to[2 * i + 1] = table[pair[i] & 15];
    }
  }
}

at::Tensor expand_on_cpu(const at::Tensor& codes, const at::Tensor& scales, std::int64_t count) {
  const at::Tensor out = at::empty({count}, at::kFloat);
  const std::int64_t whole = count / kNf4Block, piece = kPieceValues / kNf4Block;
  const auto* bytes = codes.const_data_ptr<std::uint8_t>();
  const auto* scale = scales.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  run_pieces(ceil_divide(whole, piece), [&](std::int64_t i) {
    const std::int64_t begin = i * piece;
    expand_blocks(bytes + begin * kNf4Block / 2, scale + begin, to + begin * kNf4Block,
                  std::min(piece, whole - begin));
  });
  for (std::int64_t i = whole * kNf4Block; i < count; ++i) {
    const int code = i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4;
    to[i] = kNf4[code] * scale[whole];
  }
  return out;
}

// A table that is uploaded once to each device that asks for it. Never destroyed: a device may be
// gone before the program's static objects are.
class DeviceTable {
 public:
  explicit DeviceTable(at::Tensor host) : host_(std::move(host)) {}
  at::Tensor on(at::Device device) {
    if (device.is_cpu()) return host_;
    const std::lock_guard lock(mutex_);
    at::Tensor& copy = copies_[device.index()];
    if (!copy.defined()) copy = host_.to(device);
    return copy;
  }

 private:
  at::Tensor host_;
  std::mutex mutex_;
  std::map<c10::DeviceIndex, at::Tensor> copies_;
};

// [256, 2]: both values of a byte.
at::Tensor make_nf4_pairs() {
  const at::Tensor levels = nf4_levels(at::kCPU);
  return at::stack({levels.repeat_interleave(16), levels.repeat({16})}, 1);
}

// In pieces, whose indices and unscaled values are the only memory besides the result's.
at::Tensor expand_with_operators(const at::Tensor& codes, const at::Tensor& scales,
                                 std::int64_t count, at::ScalarType dtype) {
  static auto& pairs_table = *new DeviceTable(make_nf4_pairs());
  const at::Tensor pairs = pairs_table.on(codes.device());
  const std::int64_t blocks = ceil_divide(count, kNf4Block);
  const at::Tensor out = at::empty({blocks, kNf4Block}, codes.options().dtype(dtype));
  const std::int64_t step = kGpuPiece / kNf4Block;
  for (std::int64_t begin = 0; begin < blocks; begin += step) {
    const std::int64_t size = std::min(step, blocks - begin);
    const std::int64_t first = begin * kNf4Block / 2;
    const std::int64_t bytes = std::min(size * kNf4Block / 2, codes.numel() - first);
    at::Tensor units = at::embedding(pairs, codes.narrow(0, first, bytes).to(at::kInt));
    at::Tensor piece = out.narrow(0, begin, size);
    at::mul_out(piece, to_blocks(units.view({-1}), kNf4Block),
                scales.narrow(0, begin, size).unsqueeze(1));
  }
  return out.view({-1}).narrow(0, 0, count);
}

// Scales of an NF4 weight's blocks.
at::Tensor expand_scales(const Nf4Weight& stored) {
  const at::Tensor levels = dynamic_levels(true, stored.codes.device());
  // By operators, as a loop of ours could contract the product and the sum into one rounding.
  if (stored.codes.is_cpu()) {
    TORCH_CHECK(stored.absmax_mean.dim() == 0, "joined NF4 weights are for GPUs");
    return dequantize_blockwise(stored.absmax, levels) + stored.absmax_mean;
  }
  const std::int64_t count = stored.absmax.codes.numel(), blocks = stored.absmax.scales.numel();
  at::Tensor scales = at::empty({blocks * kBlockwiseBlock}, levels.options());
  at::Tensor found = scales.narrow(0, 0, count);  // behind them lies what nobody reads
  at::index_select_out(found, levels, 0, stored.absmax.codes.to(at::kInt));
  scales.view({blocks, kBlockwiseBlock})
      .mul_(stored.absmax.scales.unsqueeze(1))
      .add_(stored.absmax_mean);
  return found;
}

std::int64_t count_values(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t edge : shape) count *= edge;
  return count;
}

}  // namespace

at::Tensor nf4_levels(at::Device device) {
  static auto& table = *new DeviceTable(at::tensor(at::ArrayRef<float>(kNf4, 16)));
  return table.on(device);
}

at::Tensor dynamic_levels(bool is_signed, at::Device device) {
  const c10::NoGradGuard no_grad;
  static auto& with_sign = *new DeviceTable(make_dynamic_levels(true));
  static auto& without = *new DeviceTable(make_dynamic_levels(false));
  return (is_signed ? with_sign : without).on(device);
}

BlockwiseCodes quantize_blockwise(const at::Tensor& values, const at::Tensor& levels) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = values.reshape({-1}).to(at::kFloat);
  auto [codes, scales] = find_levels(to_blocks(flat, kBlockwiseBlock), levels);
  return {codes.view({-1}).narrow(0, 0, flat.numel()).contiguous(), scales};
}

at::Tensor dequantize_blockwise(const BlockwiseCodes& stored, const at::Tensor& levels) {
  const c10::NoGradGuard no_grad;
  const std::int64_t count = stored.codes.numel();
  const at::Tensor units =
      at::embedding(levels.unsqueeze(1), stored.codes.to(at::kInt)).view({-1});  // [n]
  const at::Tensor blocks = to_blocks(units, kBlockwiseBlock) * stored.scales.unsqueeze(1);
  return blocks.view({-1}).narrow(0, 0, count);
}

std::int64_t Nf4Weight::nbytes() const {
  return static_cast<std::int64_t>(codes.nbytes() + absmax.codes.nbytes() + absmax.scales.nbytes() +
                                   absmax_mean.nbytes());
}

Nf4Weight quantize_nf4(const at::Tensor& weight) {
  const c10::NoGradGuard no_grad;
  const at::Tensor flat = weight.detach().reshape({-1}), levels = nf4_levels(weight.device());
  const std::int64_t count = flat.numel();
  Nf4Weight stored{.shape = weight.sizes().vec()};
  stored.codes = empty_lasting(ceil_divide(count, 2), flat.options().dtype(at::kByte));
  const at::Tensor scales =
      at::empty({ceil_divide(count, kNf4Block)}, flat.options().dtype(at::kFloat));
  const std::int64_t step = weight.is_cpu() ? kPieceValues : count;
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const std::int64_t size = std::min(step, count - begin);
    const at::Tensor piece = flat.narrow(0, begin, size).to(at::kFloat);
    const auto [found, largest] = find_levels(to_blocks(piece, kNf4Block), levels);
    const at::Tensor pairs = found.view({-1, 2});
    const at::Tensor bytes = pairs.select(1, 0) * 16 + pairs.select(1, 1);
    const std::int64_t kept = ceil_divide(size, 2);
    stored.codes.narrow(0, begin / 2, kept).copy_(bytes.narrow(0, 0, kept));
    scales.narrow(0, begin / kNf4Block, largest.numel()).copy_(largest);
  }
  stored.absmax_mean = scales.mean();
  stored.absmax =
      quantize_blockwise(scales - stored.absmax_mean, dynamic_levels(true, weight.device()));
  stored.absmax.codes =
      empty_lasting(scales.numel(), stored.codes.options()).copy_(stored.absmax.codes);
  return stored;
}

at::Tensor dequantize_nf4(const Nf4Weight& stored, at::ScalarType dtype) {
  const c10::NoGradGuard no_grad;
  const std::int64_t count = count_values(stored.shape);
  const at::Tensor scales = expand_scales(stored);
  const at::Tensor values = stored.codes.is_cpu()
                                ? expand_on_cpu(stored.codes, scales, count)
                                : expand_with_operators(stored.codes, scales, count, dtype);
  return values.to(dtype).view(stored.shape);
}

}  // namespace vlm
