#include "vlm/nn/weights/weight_format.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>

#include "vlm/nn/weights/stored_int4.h"
#include "vlm/nn/weights/stored_int8.h"
#include "vlm/nn/weights/stored_nf4.h"

namespace vlm {
namespace {

const std::array kFormats = {
    WeightFormat{.name = "NF4",
                 .fits = [](std::int64_t, std::int64_t) { return true; },
                 .nbytes =
                     [](std::int64_t out, std::int64_t in) {
                       // Four bits, a byte for each block, and a number for each block of those.
                       const auto count = static_cast<double>(out * in);
                       return count / 2 + count / kNf4Block +
                              4 * count / kNf4Block / kBlockwiseBlock;
                     },
                 .store = [](const at::Tensor& value) -> std::shared_ptr<const StoredWeight> {
                   return std::make_shared<StoredNf4>(quantize_nf4(value));
                 }},
    WeightFormat{.name = "int8",
                 .fits = [](std::int64_t, std::int64_t in) { return in <= kMostInt8Depth; },
                 .nbytes =
                     [](std::int64_t out, std::int64_t in) {
                       const auto rows = static_cast<double>(out);
                       return rows * static_cast<double>(round_up(in, kCodesStep)) + 4 * rows;
                     },
                 .store = [](const at::Tensor& value) -> std::shared_ptr<const StoredWeight> {
                   return std::make_shared<StoredInt8>(quantize_int8(value));
                 }},
    WeightFormat{.name = "int4",
                 .fits = fits_int4,
                 .nbytes =
                     [](std::int64_t out, std::int64_t in) {
                       const auto values = static_cast<double>(out * in);
                       return values * kInt4Block / (kInt4Outputs * kInt4Group) +
                              4 * static_cast<double>(out);
                     },
                 .store = [](const at::Tensor& value) -> std::shared_ptr<const StoredWeight> {
                   return std::make_shared<StoredInt4>(quantize_int4(value));
                 }},
};

}  // namespace

const WeightFormat& find_weight_format(const std::string& name) {
  const auto* found = std::ranges::find_if(
      kFormats, [&](const WeightFormat& format) { return name == format.name; });
  TORCH_CHECK(found != kFormats.end(), "no format ", name);
  return *found;
}

}  // namespace vlm
