#include "vlm/nn/cpu/int4/int4_linear.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "vlm/nn/cpu/few_rows.h"
#include "vlm/nn/cpu/int4/int4_few_rows.h"
#include "vlm/nn/cpu/lanes.h"
#include "vlm/nn/cpu/matrix_rows.h"
#include "vlm/nn/cpu/widened_blocks.h"

namespace vlm {
namespace {

using Results = std::vector<at::Tensor>;

constexpr std::int64_t kMostFew = 16;        // rows of x; more of them fill panels
constexpr std::int64_t kMostUnpaneled = 64;  // where there are none; more go through LibTorch

VLM_CLONES void quantize_each_group(const float* x, std::int64_t groups, std::int8_t* codes,
                                    float* scales, std::int32_t* offsets) {
  // As quantize_row does it for a row of any length.
  constexpr float kMost = 127.0F, kLeast = 1e-30F;
  for (std::int64_t g = 0; g < groups; ++g, x += kInt4Group, codes += kInt4Group) {
    const Floats low = load_lanes<Floats>(x), high = load_lanes<Floats>(x + kLanes);
    const float largest = largest_lane(
        larger((Floats)((Words)low & 0x7FFFFFFFU), (Floats)((Words)high & 0x7FFFFFFFU)));
    const float factor = largest > kLeast ? kMost / largest : 0.0F;
    const Words first = (Words)(low * factor + kRound), second = (Words)(high * factor + kRound);
    const Bytes bytes[2] = {lowest_bytes(first), lowest_bytes(second)};
    std::memcpy(codes, bytes, sizeof bytes);
    Words sums[1] = {first + second - 2 * std::bit_cast<std::uint32_t>(kRound)};
    Floats differences[1] = {(low - low) + (high - high)};
    const float rest = add_lanes(differences)[0];  // NaN where a number isn't finite
    scales[g] = (largest > kLeast ? largest / kMost : 0.0F) + rest;
    const auto sum = static_cast<std::int32_t>(add_lanes(sums)[0]);
    offsets[g] = rest == rest ? 128 * sum : 0;
  }
}

const Int4Kernel& quickest_kernel() {
  static const Int4Kernel& found =
      *std::ranges::find_if(int4_kernels(), [](const Int4Kernel& one) { return one.is_usable; });
  return found;
}

Results multiply_few_int4(const at::Tensor& x, const std::vector<Int4Map>& maps) {
  thread_local GroupedRows rows;
  quantize_groups(x, rows);
  Results results;
  std::vector<Int4Rows> products;
  for (const Int4Map& map : maps) {
    at::Tensor& y =
        results.emplace_back(at::empty({x.size(0), map.weight->out_features()}, at::kFloat));
    products.push_back({.x = rows.codes.data(),
                        .x_scales = rows.scales.data(),
                        .offsets = rows.offsets.data(),
                        .blocks = map.weight->panel(0),
                        .levels = map.weight->levels.data(),
                        .bias = map.bias.defined() ? map.bias.const_data_ptr<float>() : nullptr,
                        .y = y.mutable_data_ptr<float>(),
                        .rows = x.size(0),
                        .inputs = x.size(1),
                        .n = map.weight->blocks.size(0),
                        .k = kInt4Outputs * x.size(1)});
  }
  run_columns(products, quickest_kernel().multiply);
  return results;
}

Results multiply_widened_int4(const at::Tensor& x, const std::vector<Int4Map>& maps) {
  Results results;
  for (const Int4Map& map : maps) {
    const Int4Weight& weight = *map.weight;
    const NarrowMatrix matrix{
        .n = weight.out_features(),
        .k = weight.in_features(),
        .widen = [&weight](std::int64_t first, std::int64_t count, float* to) {
          widen_int4(weight, first, count, to);
        }};
    results.push_back(multiply_widened(x, matrix, map.bias));
  }
  return results;
}

}  // namespace

bool fills_int4_panels(const at::Tensor& rows) {
  return rows.size(0) > kMostFew && has_int8_products();
}

void quantize_groups(const at::Tensor& x, GroupedRows& to) {
  const auto count = static_cast<std::size_t>(x.numel()), groups = count / kInt4Group;
  to.codes.resize(count);
  to.scales.resize(groups);
  to.offsets.resize(groups);
  quantize_each_group(x.const_data_ptr<float>(), static_cast<std::int64_t>(groups), to.codes.data(),
                      to.scales.data(), to.offsets.data());
}

std::vector<at::Tensor> int4_linears(const at::Tensor& x, const std::vector<Int4Map>& maps,
                                     bool with_products) {
  for (const Int4Map& map : maps) {
    TORCH_CHECK(
        x.is_cpu() && x.scalar_type() == at::kFloat && x.size(-1) == map.weight->in_features(),
        "int4_linear: x ", x.sizes(), " ", x.scalar_type(), ", weight [",
        map.weight->out_features(), ", ", map.weight->in_features(), "]");
  }
  const at::Tensor rows = as_rows(x);
  const std::int64_t few = with_products ? kMostFew : kMostUnpaneled;
  Results results = rows.size(0) <= few ? multiply_few_int4(rows, maps)
                    : with_products     ? int4_panel_linears(rows, maps)
                                        : multiply_widened_int4(rows, maps);
  for (at::Tensor& y : results) y = shaped_like(x, y);
  return results;
}

}  // namespace vlm
