#include "vlm/models/gguf/gguf_weights.h"

#include <ATen/ops/empty.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/convert.h"
#include "vlm/io/parallel.h"
#include "vlm/models/gguf/gguf_config.h"
#include "vlm/models/gguf/gguf_names.h"
#include "vlm/nn/weights/stored_int4.h"
#include "vlm/nn/weights/stored_int8.h"
#include "vlm/nn/weights/weight_format.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// What isn't a weight of its own.
constexpr const char* kFrequencies = "rope_freqs.weight";

constexpr std::int64_t kWidenedAtOnce = 1 << 21;  // values

bool holds_numbers(GgufType type) {
  return type == GgufType::kF32 || type == GgufType::kF16 || type == GgufType::kBF16;
}

at::ScalarType dtype_of_values(GgufType type) {
  if (type == GgufType::kF16) return at::kHalf;
  return type == GgufType::kBF16 ? at::kBFloat16 : at::kFloat;
}

// The levels of blocks that are the kernel's own, or null.
const Int4Levels* levels_of(GgufType type) {
  if (type == GgufType::kQ4_0) return &kEvenLevels;
  return type == GgufType::kIQ4_NL ? &kNearLevels : nullptr;
}

// Blocks of Q4_0 and IQ4_NL: a half, then bytes with value j in the low bits and j + 16 in the
// high.
void read_groups(const std::uint8_t* blocks, std::int64_t count, CodedGroup* to) {
  constexpr std::int64_t kBytes = 18, kHalfGroup = kInt4Group / 2;
  for (std::int64_t g = 0; g < count; ++g, blocks += kBytes) {
    c10::Half scale;
    std::memcpy(&scale, blocks, sizeof scale);
    to[g].scale = static_cast<float>(scale);
    for (std::int64_t j = 0; j < kHalfGroup; ++j) {
      to[g].codes[j] = blocks[2 + j] & 15;
      to[g].codes[j + kHalfGroup] = blocks[2 + j] >> 4;
    }
  }
}

// Whether the layers of MLPs are named the other way round: the first takes what the encoder gives.
bool has_swapped_layers(const GgufHeader& header) {
  const auto up = header.tensors.find("v.blk.0.ffn_up.weight");
  const auto down = header.tensors.find("v.blk.0.ffn_down.weight");
  if (up == header.tensors.end() || down == header.tensors.end()) return false;
  const std::int64_t width = header.number("clip.vision.embedding_length");
  return up->second.shape.back() != width && down->second.shape.back() == width;
}

}  // namespace

std::int64_t GgufWeights::Piece::row_in_file(std::int64_t row) const {
  if (heads == 0) return first + row;
  const std::int64_t size = rows / heads, half = size / 2, within = row % size;
  return first + row - within + 2 * (within % half) + within / half;
}

GgufWeights::GgufWeights(const fs::path& folder)
    : text_(std::make_unique<GgufFile>(fs::read_symlink(folder / kGgufText))) {
  if (fs::is_symlink(folder / kGgufVision)) {
    vision_ = std::make_unique<GgufFile>(fs::read_symlink(folder / kGgufVision));
  }
  add_text();
  if (vision_) add_vision();
}

void GgufWeights::add(const std::string& key, Piece piece) {
  const GgufTensor& tensor = piece.file->tensor(piece.name);
  if (piece.rows == 0) piece.rows = tensor.shape[0];
  piece.entry = {.dtype = dtype_of_values(tensor.type), .shape = tensor.shape};
  piece.entry.shape[0] = piece.rows;
  const bool fits = piece.heads >= 0 && piece.heads <= piece.rows &&
                    (piece.heads == 0 || piece.rows % (2 * piece.heads) == 0);
  if (!fits) {
    throw Error({.what = "rows don't fit the number of heads",
                 .where = concat(piece.file->path().string(), ": ", piece.name),
                 .got = concat(piece.rows, " rows, ", piece.heads, " heads")});
  }
  pieces_.emplace(key, std::move(piece));
}

// q, k and v one below the other.
void GgufWeights::add_fused(const std::string& name, const std::string& prefix) {
  const GgufHeader& header = text_->header();
  const std::string arch = header.text("general.architecture");
  const std::int64_t heads = header.number(arch + ".attention.head_count");
  const std::int64_t pairs = header.number(arch + ".attention.head_count_kv", heads);
  const std::int64_t rows = text_->tensor(name).shape[0];
  if (heads < 1 || pairs < 1 || heads > rows || pairs > rows || rows % (heads + 2 * pairs) != 0) {
    throw Error({.what = "rows don't fit the number of heads",
                 .where = concat(text_->path().string(), ": ", name),
                 .got = concat(rows, " rows, ", heads, " and ", pairs, " heads")});
  }
  const std::int64_t size = rows / (heads + 2 * pairs);
  const bool is_permuted = gguf_permutes(arch);
  std::int64_t first = 0;
  for (const auto& [part, count] :
       {std::pair("attn_q", heads), {"attn_k", pairs}, {"attn_v", pairs}}) {
    std::string own = name;
    own.replace(own.find("attn_qkv"), std::string("attn_qkv").size(), part);
    const bool turns = is_permuted && own.find("attn_v") == std::string::npos;
    add(*gguf_text_key(own, prefix), {.file = text_.get(),
                                      .name = name,
                                      .first = first,
                                      .rows = count * size,
                                      .heads = turns ? count : 0});
    first += count * size;
  }
}

void GgufWeights::add_text() {
  const GgufHeader& header = text_->header();
  const std::string arch = header.text("general.architecture");
  const std::string prefix = vision_ ? "model.text_model." : "model.";
  for (const auto& [name, tensor] : header.tensors) {
    if (name == kFrequencies) continue;
    if (name.find(".attn_qkv.") != std::string::npos) {
      add_fused(name, prefix);
      continue;
    }
    const bool is_q = name.find(".attn_q.") != std::string::npos;
    const bool is_k = name.find(".attn_k.") != std::string::npos;
    std::int64_t heads = 0;
    if (gguf_permutes(arch) && (is_q || is_k)) {
      heads = header.number(arch + ".attention.head_count");
      if (is_k) heads = header.number(arch + ".attention.head_count_kv", heads);
    }
    // What has no place in the model is told by its own name.
    add(gguf_text_key(name, prefix).value_or(name),
        {.file = text_.get(), .name = name, .heads = heads});
  }
}

void GgufWeights::add_vision() {
  const bool is_swapped = has_swapped_layers(vision_->header());
  for (const auto& [name, tensor] : vision_->header().tensors) {
    add(gguf_vision_key(name, is_swapped).value_or(name), {.file = vision_.get(), .name = name});
  }
}

std::vector<fs::path> GgufWeights::paths() const {
  std::vector<fs::path> paths = text_->paths();
  if (vision_) paths.insert(paths.end(), vision_->paths().begin(), vision_->paths().end());
  return paths;
}

std::vector<std::string> GgufWeights::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, piece] : pieces_) keys.push_back(key);
  return keys;
}

const GgufWeights::Piece& GgufWeights::find(const std::string& key) const {
  const auto found = pieces_.find(key);
  if (found != pieces_.end()) return found->second;
  throw Error({.what = concat("no tensor '", key, "'"), .where = text_->path().string()});
}

const TensorEntry& GgufWeights::entry(const std::string& key) const {
  return find(key).entry;
}

bool GgufWeights::is_decoded(const std::string& key) const {
  const Piece& piece = find(key);
  return piece.heads != 0 || !holds_numbers(piece.file->tensor(piece.name).type);
}

std::string GgufWeights::stored_as(const std::string& key) const {
  const Piece& piece = find(key);
  return gguf_block(piece.file->tensor(piece.name).type).name;
}

at::Tensor GgufWeights::widen_rows(const Piece& piece, std::int64_t begin, std::int64_t count) {
  const GgufType type = piece.file->tensor(piece.name).type;
  const at::Tensor blocks = piece.file->blocks(piece.name);
  const std::int64_t in = piece.entry.shape[1];
  at::Tensor wide = at::empty({count, in}, at::kFloat);
  const auto* from = blocks.const_data_ptr<std::uint8_t>();
  auto* to = wide.mutable_data_ptr<float>();
  run_pieces(count, [&](std::int64_t i) {
    widen_gguf(type, from + piece.row_in_file(begin + i) * blocks.size(1), in, to + i * in);
  });
  return wide;
}

at::Tensor GgufWeights::tensor(const std::string& key) const {
  const Piece& piece = find(key);
  if (!holds_numbers(piece.file->tensor(piece.name).type) && piece.entry.shape.size() == 2) {
    at::Tensor wide = widen_rows(piece, 0, piece.rows);
    drop_pages(piece.file->blocks(piece.name));
    return wide;
  }
  const at::Tensor rows = piece.file->values(piece.name).narrow(0, piece.first, piece.rows);
  if (piece.heads == 0) return rows;
  // A head's rows are pairs; what stands first in each comes first.
  const std::vector<std::int64_t> shape = rows.sizes().vec();
  const std::int64_t half = piece.rows / piece.heads / 2;
  return rows.reshape({piece.heads, half, 2, -1}).transpose(1, 2).reshape(shape);
}

std::string GgufWeights::format(const std::string& key) const {
  const Piece& piece = find(key);
  const GgufType type = piece.file->tensor(piece.name).type;
  if (holds_numbers(type) || piece.entry.shape.size() != 2) return "";
  const std::int64_t out = piece.entry.shape[0], in = piece.entry.shape[1];
  if (levels_of(type) && fits_int4(out, in)) return Int4Format::kName;
  return find_weight_format(Int8Format::kName).fits(out, in) ? Int8Format::kName : "";
}

// A piece of the rows at a time, so that few of them are ever numbers.
std::shared_ptr<const StoredWeight> GgufWeights::store_rows(const Piece& piece) {
  const std::int64_t out = piece.rows, in = piece.entry.shape[1];
  Int8Weight whole{.codes = at::empty({out, round_up(in, kCodesStep)}, at::kByte),
                   .scales = at::empty({out}, at::kFloat),
                   .in_features = in};
  const std::int64_t step = std::max<std::int64_t>(kWidenedAtOnce / in, 1);
  for (std::int64_t begin = 0; begin < out; begin += step) {
    const std::int64_t count = std::min(step, out - begin);
    const Int8Weight part = quantize_int8(widen_rows(piece, begin, count));
    whole.codes.narrow(0, begin, count).copy_(part.codes);
    whole.scales.narrow(0, begin, count).copy_(part.scales);
  }
  return std::make_shared<StoredInt8>(std::move(whole));
}

std::shared_ptr<const StoredWeight> GgufWeights::store_groups(const Piece& piece,
                                                              const Int4Levels& levels) {
  const std::int64_t in = piece.entry.shape[1], groups = in / kInt4Group;
  const at::Tensor blocks = piece.file->blocks(piece.name);
  const auto* first = blocks.const_data_ptr<std::uint8_t>();
  return std::make_shared<StoredInt4>(
      pack_int4(piece.rows, in, levels, [&](std::int64_t panel, CodedGroup* to) {
        for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
          const std::int64_t row = piece.row_in_file(panel * kInt4Outputs + r);
          read_groups(first + row * blocks.size(1), groups, to + r * groups);
        }
      }));
}

std::shared_ptr<const StoredWeight> GgufWeights::stored(const std::string& key) const {
  const Piece& piece = find(key);
  const Int4Levels* levels = levels_of(piece.file->tensor(piece.name).type);
  const bool keeps_codes = format(key) == Int4Format::kName;
  auto made = keeps_codes ? store_groups(piece, *levels) : store_rows(piece);
  drop_pages(piece.file->blocks(piece.name));
  return made;
}

}  // namespace vlm
