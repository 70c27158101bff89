#include "vlm/models/gguf/gguf_export.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Half.h>

#include <array>
#include <cmath>
#include <cstring>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/image/image_processor.h"
#include "vlm/io/gguf/gguf_file.h"
#include "vlm/io/parallel.h"
#include "vlm/models/gguf/gguf_config.h"
#include "vlm/models/gguf/gguf_names.h"
#include "vlm/models/gguf/gguf_tokenizer.h"
#include "vlm/models/gguf/gguf_weights.h"
#include "vlm/models/smolvlm/smolvlm.h"
#include "vlm/models/text/text_model.h"
#include "vlm/nn/cpu/int4/int4_weight.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

struct ExportType {
  const char* name;
  GgufType type;
  GgufType others;  // of embeddings, head, encoder and connector
};

constexpr std::array<ExportType, 6> kTypes = {{
    {"f32", GgufType::kF32, GgufType::kF32},
    {"f16", GgufType::kF16, GgufType::kF16},
    {"bf16", GgufType::kBF16, GgufType::kBF16},
    {"q8_0", GgufType::kQ8_0, GgufType::kQ8_0},
    {"q4_0", GgufType::kQ4_0, GgufType::kQ8_0},
    {"iq4_nl", GgufType::kIQ4_NL, GgufType::kQ8_0},
}};

constexpr std::int64_t kGroup = 32;       // values of a block
constexpr std::int64_t kEightBytes = 34;  // of a block of Q8_0
constexpr std::int64_t kFourBytes = 18;   // of one of Q4_0 and IQ4_NL

const ExportType& find_type(const std::string& name) {
  for (const ExportType& type : kTypes) {
    if (name == type.name) return type;
  }
  throw Error({.what = "unknown type of GGUF file",
               .where = "--type",
               .got = concat("'", name, "'"),
               .wanted = join(gguf_export_types())});
}

void write_eight_bits(const float* values, std::uint8_t* block) {
  float largest = 0;
  for (std::int64_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(values[i]));
  const float step = largest / 127.0F, factor = step > 0 ? 1.0F / step : 0.0F;
  const c10::Half scale(step);
  std::memcpy(block, &scale, sizeof scale);
  for (std::int64_t i = 0; i < kGroup; ++i) {
    block[2 + i] =
        static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(values[i] * factor)));
  }
}

// [out, in] float32 → [out, in / 32 blocks].
at::Tensor to_eight_bits(const at::Tensor& values) {
  const std::int64_t groups = values.size(1) / kGroup;
  at::Tensor blocks = at::empty({values.size(0), groups * kEightBytes}, at::kByte);
  const float* from = values.const_data_ptr<float>();
  auto* to = blocks.mutable_data_ptr<std::uint8_t>();
  run_pieces(values.size(0), [&](std::int64_t row) {
    for (std::int64_t g = row * groups; g < (row + 1) * groups; ++g) {
      write_eight_bits(from + g * kGroup, to + g * kEightBytes);
    }
  });
  return blocks;
}

// Group `g` of output `row` out of the kernel's blocks (int4_weight.h).
void write_four_bits(const Int4Weight& weight, std::int64_t row, std::int64_t g, std::uint8_t* to) {
  const std::int64_t r = row % kInt4Outputs;
  const std::uint8_t* block = weight.panel(row / kInt4Outputs) + g * kInt4Block;
  std::memcpy(to, block + kInt4Codes + 2 * r, 2);
  std::array<std::uint8_t, kGroup> codes;
  for (std::int64_t i = 0; i < kGroup / 2; ++i) {
    const std::uint8_t byte = block[i / 4 * 64 + r * 4 + i % 4];
    codes[i / 4 * 8 + i % 4] = byte & 15;
    codes[i / 4 * 8 + 4 + i % 4] = byte >> 4;
  }
  for (std::int64_t j = 0; j < kGroup / 2; ++j) {
    to[2 + j] = static_cast<std::uint8_t>(codes[j] | codes[j + kGroup / 2] << 4);
  }
}

at::Tensor to_four_bits(const at::Tensor& values, const Int4Levels& levels) {
  const std::int64_t out = values.size(0), groups = values.size(1) / kGroup;
  const std::int64_t missing = (kInt4Outputs - out % kInt4Outputs) % kInt4Outputs;
  const Int4Weight weight =
      quantize_int4(missing > 0 ? at::constant_pad_nd(values, {0, 0, 0, missing}) : values, levels);
  at::Tensor blocks = at::empty({out, groups * kFourBytes}, at::kByte);
  auto* to = blocks.mutable_data_ptr<std::uint8_t>();
  run_pieces(out, [&](std::int64_t row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      write_four_bits(weight, row, g, to + (row * groups + g) * kFourBytes);
    }
  });
  return blocks;
}

GgufOutput make_output(const std::string& name, const at::Tensor& values, GgufType type) {
  const bool has_numbers =
      type == GgufType::kF32 || type == GgufType::kF16 || type == GgufType::kBF16;
  if (has_numbers) return gguf_dense(name, values, type);
  if (values.size(-1) % kGroup != 0) return gguf_dense(name, values, GgufType::kF16);
  const at::Tensor wide = values.detach().to(at::kFloat).contiguous();
  at::Tensor blocks;
  if (type == GgufType::kQ8_0) {
    blocks = to_eight_bits(wide);
  } else {
    blocks = to_four_bits(wide, type == GgufType::kQ4_0 ? kEvenLevels : kNearLevels);
  }
  return {name, type, wide.sizes().vec(), blocks};
}

// Rows of each head in the order of llama.cpp: those of the halves by turns.
at::Tensor interleave_heads(const at::Tensor& rows, std::int64_t heads) {
  const std::int64_t half = rows.size(0) / heads / 2;
  return rows.reshape({heads, 2, half, -1}).transpose(1, 2).reshape(rows.sizes()).contiguous();
}

// The decoder's config and where its keys begin.
struct TextPart {
  DecoderConfig config;
  std::string prefix;
};

bool is_of_head(const std::string& name) {
  return name == "output.weight" || name == "token_embd.weight";
}

std::vector<GgufOutput> text_tensors(const VisionLanguageModel& model, const TextPart& part,
                                     const ExportType& type) {
  std::vector<GgufOutput> outputs;
  const std::vector<float> factors = gguf_frequency_factors(part.config);
  if (!factors.empty()) {
    outputs.push_back(gguf_dense("rope_freqs.weight", at::tensor(factors), GgufType::kF32));
  }
  for (const auto& [key, weight] : model.weights()) {
    const auto name = gguf_text_name(key, part.prefix);
    if (!name) continue;
    at::Tensor values = weight.detach();
    const bool is_q = name->find(".attn_q.") != std::string::npos;
    const bool is_k = name->find(".attn_k.") != std::string::npos;
    if (gguf_permutes(part.config.model_type) && (is_q || is_k)) {
      values =
          interleave_heads(values, is_q ? part.config.num_attention_heads : part.config.kv_heads());
    }
    const GgufType wanted = values.dim() == 1   ? GgufType::kF32
                            : is_of_head(*name) ? type.others
                                                : type.type;
    outputs.push_back(make_output(*name, values, wanted));
  }
  return outputs;
}

std::vector<GgufOutput> vision_tensors(const VisionLanguageModel& model, const ExportType& type) {
  std::vector<GgufOutput> outputs;
  for (const auto& [key, weight] : model.weights()) {
    const auto name = gguf_vision_name(key);
    if (!name) continue;
    const bool is_wide = weight.dim() != 2 || *name == "v.position_embd.weight";
    outputs.push_back(make_output(*name, weight.detach(), is_wide ? GgufType::kF32 : type.others));
  }
  return outputs;
}

// "256M", "2.2B".
std::string size_label(const VisionLanguageModel& model) {
  double count = 0;
  for (const auto& [name, weight] : model.weights()) count += static_cast<double>(weight.numel());
  if (count >= 1e9) return fixed_text(count / 1e9, 1) + "B";
  return count >= 1e6 ? fixed_text(count / 1e6, 0) + "M" : fixed_text(count / 1e3, 0) + "K";
}

GgufPairs general_pairs(const char* architecture, const char* kind, const std::string& name,
                        const std::string& size, GgufType type) {
  const auto text = [](const std::string& value) {
    return GgufValue{GgufValueType::kString, value};
  };
  return {{"general.architecture", text(architecture)},
          {"general.type", text(kind)},
          {"general.name", text(name)},
          {"general.size_label", text(size)},
          {"general.file_type", {GgufValueType::kUint32, gguf_block(type).file_type}},
          {"general.quantization_version", {GgufValueType::kUint32, 2}}};
}

// The family's config: SmolVLM's, or that of a text model.
struct ExportedFamily {
  TextPart text;
  std::optional<SmolVlmConfig> pictures;
};

ExportedFamily find_exported(const VisionLanguageModel& model, const fs::path& source) {
  const fs::path path = source / "config.json";
  const Json config = load_json(path);
  if (const auto* smolvlm = dynamic_cast<const SmolVlm*>(&model)) {
    return {{smolvlm->config().text_config, "model.text_model."}, smolvlm->config()};
  }
  if (dynamic_cast<const TextModel*>(&model)) {
    return {{TextModelConfig::parse(config, path.string()).decoder, "model."}, std::nullopt};
  }
  throw Error({.what = "no GGUF file can be made of this family",
               .where = path.string(),
               .got = config.value("model_type", ""),
               .wanted = "smolvlm, idefics3, llama, qwen2 or qwen3"});
}

// A model isn't written over itself.
void check_other_file(const fs::path& source, const fs::path& file) {
  for (const char* link : {kGgufText, kGgufVision}) {
    if (!fs::exists(source / link) || !fs::exists(file)) continue;
    if (!fs::equivalent(source / link, file)) continue;
    throw Error({.what = "file is the model that is exported",
                 .where = file.string(),
                 .hint = "another --output or --name keeps both"});
  }
}

}  // namespace

const std::vector<std::string>& gguf_export_types() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const ExportType& type : kTypes) all.emplace_back(type.name);
    return all;
  }();
  return names;
}

std::vector<fs::path> export_gguf(const VisionLanguageModel& model, const fs::path& source,
                                  const std::string& type_name, const std::string& name,
                                  const fs::path& folder) {
  const ExportType& type = find_type(type_name);
  const ExportedFamily family = find_exported(model, source);
  const std::string where = (source / "config.json").string(), size = size_label(model);
  const DecoderConfig& decoder = family.text.config;
  GgufPairs pairs = general_pairs(decoder.model_type.c_str(), "model", name, size, type.type);
  for (GgufPairs more :
       {gguf_text_pairs(decoder, where), gguf_tokenizer_pairs(source, decoder.vocab_size)}) {
    pairs.insert(pairs.end(), more.begin(), more.end());
  }
  make_folders(folder);
  const std::string file = concat(name, "-", type_name, ".gguf");
  std::vector<fs::path> written = {folder / file};
  check_other_file(source, written[0]);
  save_gguf(written[0], pairs, text_tensors(model, family.text, type));
  if (!family.pictures) return written;
  const ImageProcessorConfig pictures = ImageProcessorConfig::load(source);
  if (!pictures.do_image_splitting) {
    log_warning(concat(source.string(),
                       ": this model is shown a picture as one tile; llama.cpp shows any as a tile "
                       "and the whole, so its answers about pictures can differ"));
  }
  pairs = general_pairs("clip", "mmproj", name, size, type.others);
  for (const auto& pair : gguf_vision_pairs(*family.pictures, pictures.size_longest_edge)) {
    pairs.push_back(pair);
  }
  for (const std::string& kept : gguf_kept_files()) {
    if (!fs::exists(source / kept)) continue;
    pairs.push_back({"vlm." + kept, {GgufValueType::kString, load_text(source / kept)}});
  }
  written.push_back(folder / ("mmproj-" + file));
  check_other_file(source, written[1]);
  save_gguf(written[1], pairs, vision_tensors(model, type));
  return written;
}

}  // namespace vlm
