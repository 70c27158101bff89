#include "vlm/models/packed/packed_groups.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/int4/int4_weight.h"
#include "vlm/nn/weights/stored_int4.h"

namespace vlm {
namespace {

constexpr float kMiddle = 8;
constexpr std::int64_t kPerWord = 8;          // codes in 32 bits
constexpr std::int64_t kMostBlock = 1 << 20;  // values that share a scale

// Where AWQ keeps output j of eight.
constexpr std::array<int, 8> kAwqPlaces = {0, 4, 1, 5, 2, 6, 3, 7};

struct PackedFiles {
  const Checkpoint& files;
  std::string base;

  bool has(const char* name) const { return files.contains(base + name); }
  std::string where(const char* name) const {
    return concat(files.folder().string(), ": ", base, name);
  }
  // The tensor, of that dtype where one is named.
  at::Tensor tensor(const char* name, std::optional<at::ScalarType> dtype = {}) const {
    const at::Tensor found = files.tensor(base + name);
    if (dtype && found.scalar_type() != *dtype) {
      throw Error({.what = "packed weight has an unsupported dtype",
                   .where = where(name),
                   .got = dtype_text(found.scalar_type()),
                   .wanted = dtype_text(*dtype)});
    }
    return found.contiguous();
  }
  at::Tensor matrix(const char* name, std::optional<at::ScalarType> dtype = {}) const {
    const at::Tensor found = tensor(name, dtype);
    if (found.dim() == 2 && found.size(0) > 0 && found.size(1) > 0) return found;
    throw Error({.what = "is no matrix", .where = where(name), .got = shape_text(found.sizes())});
  }
};

void require_packed(bool holds, const std::string& where, const at::Tensor& found,
                    const std::string& wanted) {
  if (holds) return;
  throw Error({.what = "packed weight has the wrong shape",
               .where = where,
               .got = shape_text(found.sizes()),
               .wanted = wanted});
}

// Four bits of each of eight values of every word, [rows, words] int32 → [rows, words · 8] uint8.
at::Tensor unpack_words(const at::Tensor& words, const std::array<int, 8>& places) {
  std::vector<at::Tensor> parts;
  for (const int place : places) {
    parts.push_back(words.bitwise_right_shift(4 * place).bitwise_and(15));
  }
  return at::stack(parts, -1).flatten(-2).to(at::kByte);
}

constexpr std::array<int, 8> kInOrder = {0, 1, 2, 3, 4, 5, 6, 7};

class CompressedGroups : public PackedGroups {
 public:
  explicit CompressedGroups(const PackedFiles& files)
      : words_(files.matrix("weight_packed", at::kInt)) {
    const at::Tensor shape = files.tensor("weight_shape").to(at::kLong);
    require_packed(shape.numel() == 2, files.where("weight_shape"), shape, "two sizes");
    out = shape.const_data_ptr<std::int64_t>()[0];
    in = shape.const_data_ptr<std::int64_t>()[1];
    const std::int64_t least = kPerWord * (words_.size(1) - 1);
    require_packed(words_.size(0) == out && in > least && in <= least + kPerWord,
                   files.where("weight_packed"), words_, concat("words of [", out, ", ", in, "]"));
    const at::Tensor scales = files.matrix("weight_scale");
    at::Tensor zeros;
    if (files.has("weight_zero_point")) {
      const at::Tensor packed = files.matrix("weight_zero_point", at::kInt);  // [out / 8, groups]
      require_packed(packed.size(0) == (out + kPerWord - 1) / kPerWord,
                     files.where("weight_zero_point"), packed,
                     concat("words of ", out, " outputs"));
      zeros = unpack_words(packed.t().contiguous(), kInOrder).t().narrow(0, 0, out);
    }
    at::Tensor index;
    if (files.has("weight_g_idx")) index = files.tensor("weight_g_idx");
    set_groups(scales, zeros, index, files.where("weight_scale"));
  }

 protected:
  void read_codes(std::int64_t n, std::int64_t begin, std::int64_t count,
                  std::uint8_t* to) const override {
    const auto* row = reinterpret_cast<const std::uint8_t*>(words_.const_data_ptr<std::int32_t>() +
                                                            n * words_.size(1));
    for (std::int64_t i = begin; i < begin + count; ++i) {
      *to++ = i % 2 == 0 ? row[i / 2] & 15 : row[i / 2] >> 4;
    }
  }

 private:
  at::Tensor words_;  // [out, in / 8]
};

class GptqGroups : public PackedGroups {
 public:
  GptqGroups(const PackedFiles& files, bool is_v2) : words_(files.matrix("qweight", at::kInt)) {
    in = words_.size(0) * kPerWord;
    out = words_.size(1);
    // The first version stores zeros less one.
    const at::Tensor zeros = unpack_words(files.matrix("qzeros", at::kInt), kInOrder);
    const at::Tensor index = files.has("g_idx") ? files.tensor("g_idx") : at::Tensor();
    set_groups(files.matrix("scales").t(), (is_v2 ? zeros : zeros + 1).t(), index,
               files.where("scales"));
  }

 protected:
  void read_codes(std::int64_t n, std::int64_t begin, std::int64_t count,
                  std::uint8_t* to) const override {
    const auto* words = words_.const_data_ptr<std::int32_t>();
    for (std::int64_t i = begin; i < begin + count; ++i) {
      const auto word = static_cast<std::uint32_t>(words[i / kPerWord * out + n]);
      *to++ = static_cast<std::uint8_t>(word >> 4 * (i % kPerWord) & 15);
    }
  }

 private:
  at::Tensor words_;  // [in / 8, out]
};

class AwqGroups : public PackedGroups {
 public:
  explicit AwqGroups(const PackedFiles& files) : words_(files.matrix("qweight", at::kInt)) {
    in = words_.size(0);
    out = words_.size(1) * kPerWord;
    set_groups(files.matrix("scales").t(),
               unpack_words(files.matrix("qzeros", at::kInt), kAwqPlaces).t(), {},
               files.where("scales"));
  }

 protected:
  void read_codes(std::int64_t n, std::int64_t begin, std::int64_t count,
                  std::uint8_t* to) const override {
    const auto* words = words_.const_data_ptr<std::int32_t>();
    const int place = kAwqPlaces[static_cast<std::size_t>(n % kPerWord)];
    for (std::int64_t i = begin; i < begin + count; ++i) {
      const auto word = static_cast<std::uint32_t>(words[(i * out + n) / kPerWord]);
      *to++ = static_cast<std::uint8_t>(word >> 4 * place & 15);
    }
  }

 private:
  at::Tensor words_;  // [in, out / 8]
};

[[noreturn]] void refuse_state(const std::string& where, const Json& got) {
  throw Error({.what = "wrong type", .where = where, .got = describe(got), .wanted = "a number"});
}

std::int64_t number_of(const Json& state, const char* key, const std::string& where) {
  const Json& found = get_member(state, key, where);
  if (!found.is_number_integer()) refuse_state(inside(where, key), found);
  return found.get<std::int64_t>();
}

// Codes of blocks that go over the rows, the first of two in the high bits.
class Nf4Groups : public PackedGroups {
 public:
  explicit Nf4Groups(const PackedFiles& files) : bytes_(files.tensor("weight", at::kByte)) {
    const std::string place = files.where(kState);
    const at::Tensor text = files.tensor(kState, at::kByte);
    const Json state =
        parse_json({reinterpret_cast<const char*>(text.const_data_ptr<std::uint8_t>()),
                    static_cast<std::size_t>(text.numel())},
                   place);
    const Json& shape = get_array(state, "shape", place);
    const auto size_at = [&](std::size_t i) {
      const bool fits = shape.size() == 2 && shape[i].is_number_integer();
      return fits ? shape[i].get<std::int64_t>() : 0;
    };
    out = size_at(0);
    in = size_at(1);
    const std::int64_t block = number_of(state, "blocksize", place);
    const std::int64_t values = 2 * bytes_.numel();
    // A row must be whole blocks: then blocks are groups of inputs.
    if (in < 1 || block < 1 || in % block != 0 || values % in != 0 || values / in != out) {
      throw Error({.what = "packed weight has the wrong shape",
                   .where = place,
                   .got = concat("[", out, ", ", in, "] in blocks of ", block, ", ", bytes_.numel(),
                                 " bytes"),
                   .wanted = "two values a byte, rows of whole blocks"});
    }
    const at::Tensor map = files.tensor("weight.quant_map", at::kFloat);
    require_packed(map.numel() == 16, files.where("weight.quant_map"), map, "sixteen levels");
    std::copy_n(map.const_data_ptr<float>(), 16, levels_.begin());
    has_levels_ = true;
    set_groups(read_largest(files, state, place).view({out, -1}), {}, {},
               files.where("weight.absmax"));
  }

  static constexpr const char* kState = "weight.quant_state.bitsandbytes__nf4";

 protected:
  void read_codes(std::int64_t n, std::int64_t begin, std::int64_t count,
                  std::uint8_t* to) const override {
    const auto* bytes = bytes_.const_data_ptr<std::uint8_t>();
    for (std::int64_t i = n * in + begin; i < n * in + begin + count; ++i) {
      *to++ = i % 2 == 0 ? bytes[i / 2] >> 4 : bytes[i / 2] & 15;
    }
  }

 private:
  // The largest magnitude of each block, which may be stored in 8 bits itself.
  at::Tensor read_largest(const PackedFiles& files, const Json& state, const std::string& place) {
    const at::Tensor stored = files.tensor("weight.absmax").flatten();
    require_packed(stored.numel() > 0 &&
                       out * in / stored.numel() == number_of(state, "blocksize", place) &&
                       out * in % stored.numel() == 0,
                   files.where("weight.absmax"), stored, "one number a block");
    if (stored.scalar_type() == at::kFloat) return stored;
    const at::Tensor map = files.tensor("weight.nested_quant_map", at::kFloat);
    const at::Tensor largest = files.tensor("weight.nested_absmax", at::kFloat);
    const std::int64_t block = number_of(state, "nested_blocksize", place);
    require_packed(map.numel() == 256, files.where("weight.nested_quant_map"), map, "256 levels");
    require_packed(
        block > 0 && block <= kMostBlock && largest.numel() == (stored.numel() + block - 1) / block,
        files.where("weight.nested_absmax"), largest, "one number a block");
    const Json* offset = find_member(state, "nested_offset", place);
    if (offset && !offset->is_number()) refuse_state(inside(place, "nested_offset"), *offset);
    const at::Tensor own = map.index_select(0, stored.to(at::kLong));
    const at::Tensor scale = largest.repeat_interleave(block).narrow(0, 0, stored.numel());
    return own * scale + (offset ? offset->get<double>() : 0.0);
  }

  at::Tensor bytes_;
};

}  // namespace

void PackedGroups::set_groups(const at::Tensor& scales, const at::Tensor& zeros,
                              const at::Tensor& group_index, const std::string& where) {
  scales_ = scales.to(at::kFloat).contiguous();
  groups_ = scales_.dim() == 2 ? scales_.size(1) : 0;
  require_packed(groups_ > 0 && scales_.size(0) == out && in % groups_ == 0, where, scales_,
                 concat("[", out, ", groups of ", in, " inputs]"));
  group_ = in / groups_;
  if (zeros.defined()) {
    const at::Tensor wide = zeros.to(at::kFloat).contiguous();
    require_packed(wide.sizes() == scales_.sizes(), where, wide, shape_text(scales_.sizes()));
    if (!wide.eq(kMiddle).all().item<bool>()) zeros_ = wide;
  }
  if (!group_index.defined()) return;
  const at::Tensor index = group_index.to(at::kInt).contiguous();
  require_packed(index.numel() == in, where, index, concat("a group for each of ", in, " inputs"));
  const at::Tensor in_order = at::arange(in, at::kInt).div(group_, "floor").to(at::kInt);
  if (index.equal(in_order) || index.lt(0).all().item<bool>()) return;
  require_packed(index.ge(0).all().item<bool>() && index.lt(groups_).all().item<bool>(), where,
                 index, concat("groups below ", groups_));
  group_index_ = index;
  order_ = group_index_.const_data_ptr<std::int32_t>();
}

float PackedGroups::value_of(std::int64_t n, std::int64_t i, std::uint8_t code) const {
  const std::int64_t at = n * groups_ + group_of(i);
  const float scale = scales_.const_data_ptr<float>()[at];
  if (has_levels_) return scale * levels_[code];
  const float zero = zeros_.defined() ? zeros_.const_data_ptr<float>()[at] : kMiddle;
  return scale * (static_cast<float>(code) - zero);
}

at::Tensor PackedGroups::dense() const {
  at::Tensor values = at::empty({out, in}, at::kFloat);
  auto* to = values.mutable_data_ptr<float>();
  run_pieces(out, [&](std::int64_t n) {
    std::array<std::uint8_t, kPackedStep> codes;
    for (std::int64_t begin = 0; begin < in; begin += kPackedStep) {
      const std::int64_t count = std::min(kPackedStep, in - begin);
      read_codes(n, begin, count, codes.data());
      for (std::int64_t k = 0; k < count; ++k) {
        to[n * in + begin + k] = value_of(n, begin + k, codes[static_cast<std::size_t>(k)]);
      }
    }
  });
  return values;
}

bool PackedGroups::fits_kernel() const {
  if (zeros_.defined() || group_index_.defined() || group_ % kInt4Group != 0) return false;
  if (!fits_int4(out, in)) return false;
  return has_levels_ || scales_.to(at::kHalf).to(at::kFloat).equal(scales_);
}

std::shared_ptr<const StoredWeight> PackedGroups::stored() const {
  if (!fits_kernel()) return nullptr;
  static_assert(kPackedStep == kInt4Group);
  Int4Levels levels = kEvenLevels;
  float most = 1;  // what a scale is of
  if (has_levels_) {
    most = 127;
    for (std::size_t i = 0; i < levels.size(); ++i) {
      levels[i] = static_cast<std::int8_t>(std::lround(levels_[i] * most));
    }
  }
  const float* scales = scales_.const_data_ptr<float>();
  return std::make_shared<StoredInt4>(
      pack_int4(out, in, levels, [&](std::int64_t panel, CodedGroup* to) {
        for (std::int64_t n = panel * kInt4Outputs; n < (panel + 1) * kInt4Outputs; ++n) {
          for (std::int64_t begin = 0; begin < in; begin += kInt4Group, ++to) {
            to->scale = scales[n * groups_ + begin / group_] / most;
            read_codes(n, begin, kInt4Group, to->codes);
          }
        }
      }));
}

std::unique_ptr<PackedGroups> open_packed(const Checkpoint& files, const std::string& base,
                                          PackedKind kind) {
  const PackedFiles packed{files, base};
  switch (kind) {
    case PackedKind::kCompressed:
      return std::make_unique<CompressedGroups>(packed);
    case PackedKind::kGptq:
      return std::make_unique<GptqGroups>(packed, /*is_v2=*/false);
    case PackedKind::kGptqV2:
      return std::make_unique<GptqGroups>(packed, /*is_v2=*/true);
    case PackedKind::kAwq:
      return std::make_unique<AwqGroups>(packed);
    case PackedKind::kNf4:
      break;
  }
  return std::make_unique<Nf4Groups>(packed);
}

}  // namespace vlm
