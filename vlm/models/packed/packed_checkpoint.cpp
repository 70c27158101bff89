#include "vlm/models/packed/packed_checkpoint.h"

#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/io/convert.h"
#include "vlm/nn/weights/stored_int4.h"
#include "vlm/nn/weights/stored_int8.h"
#include "vlm/nn/weights/weight_format.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 2> kConfigKeys = {"quantization_config", "compression_config"};

const Json* find_quantization(const Json& config) {
  if (!config.is_object()) return nullptr;
  for (const char* key : kConfigKeys) {
    const auto found = config.find(key);
    if (found != config.end() && found->is_object()) return &*found;
  }
  return nullptr;
}

[[noreturn]] void refuse(const std::string& where, const std::string& what, const std::string& got,
                         const std::string& wanted) {
  throw Error({.what = what, .where = where, .got = got, .wanted = wanted});
}

void require_four_bits(const Json& settings, const std::string& where) {
  const Json bits = settings.value("bits", Json());
  if (bits != 4) refuse(inside(where, "bits"), "unsupported width", bits.dump(), "4");
}

void check_compressed(const Json& settings, const std::string& where) {
  constexpr std::array<const char*, 3> kFormats = {"pack-quantized", "int-quantized",
                                                   "mixed-precision"};
  const std::string format = get_string(settings, "format", where, "");
  if (std::ranges::count(kFormats, format) == 0) {
    refuse(inside(where, "format"), "unsupported format", concat("'", format, "'"), join(kFormats));
  }
  const std::string status = get_string(settings, "quantization_status", where, "compressed");
  if (status != "compressed") {
    refuse(inside(where, "quantization_status"), "weights aren't stored in few bits",
           concat("'", status, "'"), "compressed");
  }
}

PackedKind kind_of(const Json& settings, const std::string& where) {
  const std::string method = get_string(settings, "quant_method", where, "none");
  if (method == "compressed-tensors") {
    check_compressed(settings, where);
    return PackedKind::kCompressed;
  }
  if (method == "gptq") {
    require_four_bits(settings, where);
    const std::string format = get_string(settings, "checkpoint_format", where,
                                          get_string(settings, "format", where, "gptq"));
    if (format == "gptq") return PackedKind::kGptq;
    if (format == "gptq_v2") return PackedKind::kGptqV2;
    refuse(inside(where, "checkpoint_format"), "unsupported format", concat("'", format, "'"),
           "gptq or gptq_v2");
  }
  if (method == "awq") {
    require_four_bits(settings, where);
    const std::string version = get_string(settings, "version", where, "gemm");
    if (version == "gemm" || version == "GEMM") return PackedKind::kAwq;
    refuse(inside(where, "version"), "unsupported version", concat("'", version, "'"), "gemm");
  }
  if (method == "bitsandbytes") {
    const std::string type = get_string(settings, "bnb_4bit_quant_type", where, "fp4");
    if (get_bool(settings, "load_in_4bit", where, false) && type == "nf4") return PackedKind::kNf4;
    refuse(where, "unsupported kind of bitsandbytes",
           get_bool(settings, "load_in_8bit", where, false) ? "8 bits" : concat("'", type, "'"),
           "load_in_4bit with bnb_4bit_quant_type nf4");
  }
  refuse(inside(where, "quant_method"), "unsupported way to store weights in few bits",
         concat("'", method, "'"), "compressed-tensors, gptq, awq or bitsandbytes");
}

// The ending of the key by which a packed layer is known.
const char* ending_of(PackedKind kind) {
  if (kind == PackedKind::kCompressed) return "weight_packed";
  return kind == PackedKind::kNf4 ? "weight.quant_state.bitsandbytes__nf4" : "qweight";
}

// All endings of a packed layer's tensors.
constexpr std::array<const char*, 15> kEndings = {"weight_packed",
                                                  "weight_scale",
                                                  "weight_shape",
                                                  "weight_zero_point",
                                                  "weight_g_idx",
                                                  "qweight",
                                                  "qzeros",
                                                  "scales",
                                                  "g_idx",
                                                  "weight",
                                                  "weight.absmax",
                                                  "weight.quant_map",
                                                  "weight.nested_absmax",
                                                  "weight.nested_quant_map",
                                                  "weight.quant_state.bitsandbytes__nf4"};

}  // namespace

bool is_packed(const Json& config) {
  return find_quantization(config) != nullptr;
}

PackedCheckpoint::PackedCheckpoint(const fs::path& folder, const Json& config)
    : files_(folder),
      kind_(kind_of(*find_quantization(config),
                    (folder / "config.json").string() + ": quantization_config")) {
  const std::string ending = ending_of(kind_);
  const std::vector<std::string> keys = files_.keys();
  std::vector<std::string> bases;
  for (const std::string& key : keys) {
    if (key.ends_with("." + ending)) {
      bases.push_back(key.substr(0, key.size() - ending.size()));
      add_packed(bases.back());
    } else if (key.ends_with(".weight") && files_.entry(key).dtype == at::kChar) {
      bases.push_back(key.substr(0, key.size() - std::string("weight").size()));
      add_rows(bases.back());
    }
  }
  std::ranges::sort(bases);
  for (const std::string& key : keys) {
    const bool is_part = std::ranges::any_of(kEndings, [&](const std::string end) {
      return key.ends_with("." + end) &&
             std::ranges::binary_search(bases, key.substr(0, key.size() - end.size()));
    });
    if (!is_part) plain_.push_back(key);
  }
}

void PackedCheckpoint::add_packed(const std::string& base) {
  const auto groups = open_packed(files_, base, kind_);
  const bool fits = find_weight_format(Int8Format::kName).fits(groups->out, groups->in);
  const char* format = groups->fits_kernel() ? Int4Format::kName : fits ? Int8Format::kName : "";
  packed_.emplace(base + "weight",
                  Packed{.base = base,
                         .format = format,
                         .entry = {.dtype = at::kFloat, .shape = {groups->out, groups->in}}});
}

void PackedCheckpoint::add_rows(const std::string& base) {
  Packed packed{.base = base, .codes = files_.tensor(base + "weight")};
  packed.scales = files_.tensor(base + "weight_scale").to(at::kFloat);
  const std::string where = concat(files_.folder().string(), ": ", base, "weight_scale");
  if (files_.contains(base + "weight_zero_point")) {
    refuse(where, "rows of 8 bits with a zero point", "weight_zero_point", "symmetric ones");
  }
  if (packed.scales.dim() == 1) packed.scales = packed.scales.unsqueeze(1);
  const bool fits = packed.codes.dim() == 2 && packed.scales.dim() == 2 &&
                    (packed.scales.size(0) == packed.codes.size(0) || packed.scales.size(0) == 1) &&
                    packed.scales.size(1) > 0 && packed.codes.size(1) % packed.scales.size(1) == 0;
  if (!fits) {
    refuse(where, "packed weight has the wrong shape", shape_text(packed.scales.sizes()),
           concat("scales of ", shape_text(packed.codes.sizes())));
  }
  if (packed.scales.size(0) != packed.codes.size(0)) {  // one for the whole matrix
    packed.scales = packed.scales.expand({packed.codes.size(0), packed.scales.size(1)});
  }
  packed.entry = {.dtype = at::kFloat, .shape = packed.codes.sizes().vec()};
  const bool is_short =
      find_weight_format(Int8Format::kName).fits(packed.codes.size(0), packed.codes.size(1));
  packed.format = is_short ? Int8Format::kName : "";
  packed_.emplace(base + "weight", std::move(packed));
}

const PackedCheckpoint::Packed* PackedCheckpoint::find(const std::string& key) const {
  const auto found = packed_.find(key);
  return found == packed_.end() ? nullptr : &found->second;
}

std::vector<std::string> PackedCheckpoint::keys() const {
  std::vector<std::string> keys = plain_;
  for (const auto& [key, packed] : packed_) keys.push_back(key);
  std::ranges::sort(keys);
  return keys;
}

const TensorEntry& PackedCheckpoint::entry(const std::string& key) const {
  const Packed* packed = find(key);
  return packed ? packed->entry : files_.entry(key);
}

void PackedCheckpoint::release(const Packed& packed) const {
  for (const char* name : {"weight_packed", "qweight", "weight"}) {
    if (files_.contains(packed.base + name)) {
      drop_unchanged_pages({{name, files_.tensor(packed.base + name)}});
    }
  }
}

at::Tensor PackedCheckpoint::tensor(const std::string& key) const {
  const Packed* packed = find(key);
  if (!packed) return files_.tensor(key);
  at::Tensor values;
  if (packed->has_groups()) {
    values = open_packed(files_, packed->base, kind_)->dense();
  } else {
    const std::int64_t group = packed->codes.size(1) / packed->scales.size(1);
    values = packed->codes.to(at::kFloat).mul_(packed->scales.repeat_interleave(group, 1));
  }
  release(*packed);
  return values;
}

std::string PackedCheckpoint::stored_as(const std::string& key) const {
  const Packed* packed = find(key);
  if (!packed) return CodedTensors::stored_as(key);
  if (!packed->has_groups()) return "8 bits";
  return kind_ == PackedKind::kNf4 ? "NF4" : "4 bits";
}

std::string PackedCheckpoint::format(const std::string& key) const {
  const Packed* packed = find(key);
  return packed ? packed->format : "";
}

std::shared_ptr<const StoredWeight> PackedCheckpoint::stored(const std::string& key) const {
  const Packed& packed = *find(key);
  if (packed.format == Int4Format::kName) {
    auto made = open_packed(files_, packed.base, kind_)->stored();
    release(packed);
    return made;
  }
  if (packed.has_groups() || packed.scales.size(1) != 1) {
    return find_weight_format(Int8Format::kName).store(tensor(key));
  }
  // Rows as they are: plus 128, padded with zeros.
  const std::int64_t in = packed.codes.size(1), missing = round_up(in, kCodesStep) - in;
  at::Tensor codes = packed.codes.view(at::kByte).bitwise_xor(128);
  if (missing > 0) codes = at::constant_pad_nd(codes, {0, missing}, 128);
  release(packed);
  return std::make_shared<StoredInt8>(Int8Weight{
      .codes = codes, .scales = packed.scales.flatten().contiguous(), .in_features = in});
}

}  // namespace vlm
