#include "vlm/models/gguf/gguf_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

constexpr std::array<const char*, 3> kArchitectures = {"llama", "qwen2", "qwen3"};
constexpr const char* kProjector = "idefics3";
constexpr std::int64_t kTilesAcross = 4;  // of the published models' largest pictures

// Control tokens that end an answer, as llama.cpp takes them.
constexpr std::array<const char*, 8> kEnds = {
    "<end_of_utterance>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>",
    "<|end_of_text|>",    "<|end|>",    "<|eom_id|>",    "</s>"};

// A float32 of a file as people write it: 1e-05 and not 9.99999974e-06.
Json short_real(const GgufHeader& header, const std::string& key, double missing) {
  const auto value = static_cast<float>(header.real(key, missing));
  std::array<char, 64> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  const Json parsed = Json::parse(text.data(), end.ptr, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_number()) return parsed;
  throw Error({.what = "is no finite number", .where = concat(header.where, ": ", key)});
}

std::string architecture_of(const GgufHeader& header) {
  const std::string found = header.text("general.architecture");
  if (std::ranges::count(kArchitectures, found) > 0) return found;
  const bool is_vision = found == "clip";
  throw Error(
      {.what = is_vision ? "a file with a vision encoder alone" : "unsupported architecture",
       .where = header.where,
       .got = is_vision ? "" : concat("'", found, "'"),
       .wanted = is_vision ? "the text model's" : join(kArchitectures),
       .hint = is_vision ? "this one goes with --mmproj" : ""});
}

const GgufTensor& tensor_of(const GgufHeader& header, const std::string& name) {
  const auto found = header.tensors.find(name);
  if (found != header.tensors.end()) return found->second;
  throw Error({.what = concat("no tensor '", name, "'"), .where = header.where});
}

// What numbers that are no codes would be stored in.
std::string dtype_of(const GgufHeader& header) {
  bool has_half = false, has_float = false;
  for (const auto& [name, tensor] : header.tensors) {
    if (tensor.shape.size() < 2) continue;
    has_half = has_half || tensor.type == GgufType::kF16;
    has_float = has_float || tensor.type == GgufType::kF32;
    if (tensor.type != GgufType::kF16 && tensor.type != GgufType::kF32) return "bfloat16";
  }
  return has_float && !has_half ? "float32" : "float16";
}

// rope_scaling of config.json; null: positions turn as they are.
Json make_scaling(const GgufHeader& header, const std::string& prefix, std::int64_t positions,
                  const std::vector<float>& factors) {
  const std::string key = prefix + "rope.scaling.type";
  const std::string type = header.text(key, "none");
  if (type == "linear") {
    return {{"rope_type", "linear"},
            {"factor", short_real(header, prefix + "rope.scaling.factor", 1)}};
  }
  if (type != "none") {
    throw Error({.what = "unsupported rotation",
                 .where = concat(header.where, ": ", key),
                 .got = concat("'", type, "'"),
                 .wanted = "none or linear"});
  }
  if (factors.empty()) return nullptr;
  // Llama 3's: the same factors whatever the length.
  return {{"rope_type", "longrope"}, {"short_factor", factors},
          {"long_factor", factors},  {"attention_factor", 1.0},
          {"factor", 1.0},           {"original_max_position_embeddings", positions}};
}

Json make_decoder(const GgufHeader& header, const std::vector<float>& factors) {
  const std::string arch = architecture_of(header), prefix = arch + ".";
  const auto number = [&](const char* key) { return header.number(prefix + key); };
  const std::int64_t hidden = number("embedding_length"), heads = number("attention.head_count");
  const std::int64_t head =
      header.number(prefix + "attention.key_length", heads > 0 ? hidden / heads : 0);
  const std::int64_t positions = number("context_length");
  Json config = {
      {"model_type", arch},
      {"vocab_size", tensor_of(header, "token_embd.weight").shape[0]},
      {"hidden_size", hidden},
      {"intermediate_size", number("feed_forward_length")},
      {"num_hidden_layers", number("block_count")},
      {"num_attention_heads", heads},
      {"num_key_value_heads", header.number(prefix + "attention.head_count_kv", heads)},
      {"head_dim", head},
      {"max_position_embeddings", positions},
      {"hidden_act", "silu"},
      {"rms_norm_eps", short_real(header, prefix + "attention.layer_norm_rms_epsilon", 1e-5)},
      {"rope_theta", short_real(header, prefix + "rope.freq_base", 10000)},
      {"attention_bias", arch != "qwen2" && header.tensors.count("blk.0.attn_q.bias") > 0},
      {"mlp_bias", header.tensors.count("blk.0.ffn_gate.bias") > 0},
      {"tie_word_embeddings", header.tensors.count("output.weight") == 0}};
  const std::int64_t turned = header.number(prefix + "rope.dimension_count", head);
  if (turned != head && head > 0) {
    config["partial_rotary_factor"] = static_cast<double>(turned) / static_cast<double>(head);
  }
  const Json scaling = make_scaling(header, prefix, positions, factors);
  if (!scaling.is_null()) config["rope_scaling"] = scaling;
  return config;
}

std::int64_t find_token(const GgufHeader& header, const std::string& text) {
  const Json& tokens = header.list("tokenizer.ggml.tokens");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] == text) return static_cast<std::int64_t>(i);
  }
  return -1;
}

Json make_vision(const GgufHeader& header) {
  const std::string projector = header.text("clip.projector_type", "none");
  if (header.text("general.architecture") != "clip" || projector != kProjector) {
    throw Error({.what = "unsupported kind of vision encoder",
                 .where = header.where,
                 .got = concat("'", projector, "'"),
                 .wanted = concat("'", kProjector, "', SmolVLM's")});
  }
  if (!header.flag("clip.use_gelu", false)) {
    throw Error({.what = "unsupported activation",
                 .where = concat(header.where, ": clip.use_gelu"),
                 .wanted = "true"});
  }
  const auto number = [&](const char* key) { return header.number(concat("clip.vision.", key)); };
  return {{"hidden_size", number("embedding_length")},
          {"intermediate_size", number("feed_forward_length")},
          {"num_hidden_layers", number("block_count")},
          {"num_attention_heads", number("attention.head_count")},
          {"image_size", number("image_size")},
          {"patch_size", number("patch_size")},
          {"hidden_act", "gelu_pytorch_tanh"},
          {"layer_norm_eps", short_real(header, "clip.vision.attention.layer_norm_epsilon", 1e-6)}};
}

Json make_preprocessor(const GgufHeader& header) {
  const std::int64_t side = header.number("clip.vision.image_size");
  const std::int64_t longest = header.number("clip.vision.preproc_image_size", kTilesAcross * side);
  return {{"image_processor_type", "SmolVLMImageProcessor"},
          {"do_image_splitting", true},
          {"image_mean", header.list("clip.vision.image_mean")},
          {"image_std", header.list("clip.vision.image_std")},
          {"resample", 1},
          {"size", {{"longest_edge", longest}}},
          {"max_image_size", {{"longest_edge", side}}},
          {"video_sampling",
           {{"fps", 1}, {"max_frames", 64}, {"video_size", {{"longest_edge", side}}}}}};
}

Json make_generation(const GgufHeader& header) {
  Json config = Json::object();
  Json ends = Json::array();
  const auto add = [&](std::int64_t id) {
    if (id >= 0 && std::ranges::count(ends, Json(id)) == 0) ends.push_back(id);
  };
  add(header.number("tokenizer.ggml.eos_token_id", -1));
  add(header.number("tokenizer.ggml.eot_token_id", -1));
  for (const char* text : kEnds) add(find_token(header, text));
  if (!ends.empty()) config["eos_token_id"] = ends;
  return config;
}

void add_file(std::vector<SideFile>& files, const char* name, const Json& json) {
  files.push_back({name, json.dump(2) + "\n"});
}

GgufPairs::value_type count_pair(const std::string& key, std::int64_t value) {
  return {key, {GgufValueType::kUint32, value}};
}

GgufPairs::value_type real_pair(const std::string& key, double value) {
  return {key, {GgufValueType::kFloat32, value}};
}

}  // namespace

const std::vector<std::string>& gguf_kept_files() {
  static const std::vector<std::string> names = {
      "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"};
  return names;
}

bool gguf_permutes(const std::string& architecture) {
  return architecture == "llama";
}

std::vector<SideFile> make_gguf_configs(const GgufHeader& text, const GgufHeader* vision,
                                        const std::vector<float>& factors) {
  std::vector<SideFile> files;
  Json config = make_decoder(text, factors);
  if (vision) {
    const Json encoder = make_vision(*vision);
    const std::int64_t scale = vision->number("clip.vision.projector.scale_factor");
    const std::int64_t image = find_token(text, "<image>");
    if (image < 0) {
      throw Error({.what = "the text model has no token for pictures",
                   .where = text.where,
                   .wanted = "<image>",
                   .hint = concat("is ", vision->where, " of another model?")});
    }
    config = {{"model_type", "smolvlm"},  {"image_token_id", image},
              {"scale_factor", scale},    {"tie_word_embeddings", config["tie_word_embeddings"]},
              {"vision_config", encoder}, {"text_config", config}};
    const std::int64_t patch = std::max<std::int64_t>(encoder["patch_size"].get<std::int64_t>(), 1);
    const std::int64_t side = encoder["image_size"].get<std::int64_t>() / patch;
    const std::int64_t across = side / std::max<std::int64_t>(scale, 1);
    add_file(files, "preprocessor_config.json", make_preprocessor(*vision));
    add_file(files, "processor_config.json", {{"image_seq_len", across * across}});
    for (const std::string& name : gguf_kept_files()) {
      if (!vision->find("vlm." + name)) continue;
      std::erase_if(files, [&](const SideFile& file) { return file.name == name; });
      files.push_back({name, vision->text("vlm." + name)});
    }
  }
  config["dtype"] = dtype_of(text);
  add_file(files, "generation_config.json", make_generation(text));
  add_file(files, "config.json", config);
  return files;
}

GgufPairs gguf_text_pairs(const DecoderConfig& config, const std::string& where) {
  const std::string& arch = config.model_type;
  const bool is_known = std::ranges::count(kArchitectures, arch) > 0;
  using Kind = RotarySettings::Kind;
  const bool turns =
      config.rope.kind != Kind::kLongRope ||
      (config.rope.short_factor == config.rope.long_factor && config.rope.attention_factor == 1);
  if (!is_known || !turns || !config.rope.sections.empty()) {
    throw Error({.what = "no GGUF file can be made of this model",
                 .where = where,
                 .got = is_known ? "a rotation that differs by length or axis" : arch,
                 .wanted = concat("a decoder of ", join(kArchitectures))});
  }
  const std::string prefix = arch + ".";
  GgufPairs pairs = {count_pair(prefix + "block_count", config.num_hidden_layers),
                     count_pair(prefix + "context_length", config.max_position_embeddings),
                     count_pair(prefix + "embedding_length", config.hidden_size),
                     count_pair(prefix + "feed_forward_length", config.intermediate_size),
                     count_pair(prefix + "attention.head_count", config.num_attention_heads),
                     count_pair(prefix + "attention.head_count_kv", config.kv_heads()),
                     count_pair(prefix + "attention.key_length", config.head_size()),
                     count_pair(prefix + "attention.value_length", config.head_size()),
                     real_pair(prefix + "attention.layer_norm_rms_epsilon", config.rms_norm_eps),
                     real_pair(prefix + "rope.freq_base", config.rope.theta),
                     count_pair(prefix + "rope.dimension_count", config.rope.dims),
                     count_pair(prefix + "vocab_size", config.vocab_size)};
  if (config.rope.kind == Kind::kLinear) {
    pairs.push_back({prefix + "rope.scaling.type", {GgufValueType::kString, "linear"}});
    pairs.push_back(real_pair(prefix + "rope.scaling.factor", config.rope.factor));
  }
  return pairs;
}

GgufPairs gguf_vision_pairs(const SmolVlmConfig& config, std::int64_t longest_edge) {
  const SiglipConfig& vision = config.vision_config;
  const std::string prefix = "clip.vision.";
  const GgufValue half = {GgufValueType::kFloat32, Json::array({0.5, 0.5, 0.5})};
  return {{"clip.has_vision_encoder", {GgufValueType::kBool, true}},
          {"clip.projector_type", {GgufValueType::kString, kProjector}},
          count_pair(prefix + "projection_dim", config.text_config.hidden_size),
          count_pair(prefix + "image_size", vision.image_size),
          count_pair(prefix + "patch_size", vision.patch_size),
          count_pair(prefix + "embedding_length", vision.hidden_size),
          count_pair(prefix + "feed_forward_length", vision.intermediate_size),
          count_pair(prefix + "block_count", vision.num_hidden_layers),
          count_pair(prefix + "attention.head_count", vision.num_attention_heads),
          real_pair(prefix + "attention.layer_norm_epsilon", vision.layer_norm_eps),
          {prefix + "image_mean", half},
          {prefix + "image_std", half},
          count_pair(prefix + "projector.scale_factor", config.scale_factor),
          {"clip.use_gelu", {GgufValueType::kBool, true}},
          count_pair(prefix + "preproc_image_size", longest_edge)};
}

std::vector<float> gguf_frequency_factors(const DecoderConfig& config) {
  const RotarySettings& rope = config.rope;
  if (rope.kind == RotarySettings::Kind::kLongRope) {
    return {rope.short_factor.begin(), rope.short_factor.end()};
  }
  if (rope.kind != RotarySettings::Kind::kLlama3) return {};
  std::vector<float> factors;
  const auto positions = static_cast<double>(rope.original_positions);
  for (std::int64_t i = 0; i < rope.dims; i += 2) {
    const double wave =
        2 * std::numbers::pi *
        std::pow(rope.theta, static_cast<double>(i) / static_cast<double>(rope.dims));
    const double part =
        (positions / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    const double clamped = std::clamp(part, 0.0, 1.0);
    factors.push_back(static_cast<float>(1 / ((1 - clamped) / rope.factor + clamped)));
  }
  return factors;
}

}  // namespace vlm
