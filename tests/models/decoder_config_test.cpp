// config.json of text models as published and as transformers 5 writes it, and what is refused.
#include "vlm/models/decoder/decoder_config.h"

#include <torch/nn/module.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/models/text/text_model.h"

namespace vlm {
namespace {

DecoderConfig parse_decoder(const std::string& json) {
  return TextModelConfig::parse(parse_json(json, "c"), "c").decoder;
}

std::string decoder_error(const std::string& json) {
  try {
    parse_decoder(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

constexpr const char* kPhiScaling =
    R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1], "long_factor": [2, 4]})";

std::string small_phi(const std::string& scaling, const std::string& more = "") {
  return R"({"model_type": "phi3", "hidden_size": 16, "num_attention_heads": 2,
             "max_position_embeddings": 64, "original_max_position_embeddings": 16,
             "partial_rotary_factor": 0.5, )" +
         scaling + more + "}";
}

TEST_CASE("decoder config: both spellings of the rotation say the same") {
  const DecoderConfig older = parse_decoder(R"({"model_type": "llama", "head_dim": 64,
      "max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}})");
  const DecoderConfig newer = parse_decoder(R"({"model_type": "llama", "head_dim": 64,
      "max_position_embeddings": 131072, "rope_parameters": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_theta": 500000.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}})");
  for (const DecoderConfig& config : {older, newer}) {
    CHECK(config.rope.kind == RotarySettings::Kind::kLlama3);
    CHECK(config.rope.theta == 500000.0);
    CHECK(config.rope.factor == 32.0);
    CHECK(config.rope.original_positions == 8192);
    CHECK(config.rope.dims == 64);
    CHECK(config.rope.attention_factor == 1);
  }
}

TEST_CASE("decoder config: LongRoPE of Phi takes lengths and the part of a head from the root") {
  const DecoderConfig config = parse_decoder(small_phi(kPhiScaling));
  CHECK(config.rope.kind == RotarySettings::Kind::kLongRope);
  CHECK(config.rope.dims == 4);
  CHECK(config.rope.original_positions == 16);
  CHECK(config.rope.attention_factor ==
        Approx(std::sqrt(1 + std::log(4.0) / std::log(16.0))).margin(1e-12));
  CHECK(config.is_fused());
  CHECK_FALSE(config.has_input_biases());
  // Of the published model: 1.1902.
  CHECK(std::sqrt(1 + std::log(32.0) / std::log(4096.0)) == Approx(1.190238).margin(1e-6));
}

TEST_CASE("decoder config: each type has its own biases, norms and defaults") {
  const DecoderConfig llama = parse_decoder(R"({"model_type": "llama", "attention_bias": true})");
  CHECK(llama.has_input_biases());
  CHECK(llama.has_output_bias());
  const DecoderConfig qwen2 = parse_decoder(R"({"model_type": "qwen2"})");
  CHECK(qwen2.has_input_biases());
  CHECK_FALSE(qwen2.has_output_bias());
  CHECK(qwen2.vocab_size == 151936);
  CHECK(qwen2.kv_heads() == 32);
  const DecoderConfig qwen3 = parse_decoder(R"({"model_type": "qwen3", "hidden_size": 1024,
                                         "num_attention_heads": 16, "num_key_value_heads": 8})");
  CHECK(qwen3.has_head_norms());
  CHECK_FALSE(qwen3.has_input_biases());
  CHECK(qwen3.head_size() == 128);
}

TEST_CASE("decoder config: what isn't supported or can't be is refused by its key") {
  CHECK(decoder_error(R"({"model_type": "gemma"})") ==
        "c: model_type: unknown value: got 'gemma', wanted llama, qwen2, qwen3, phi3");
  CHECK(decoder_error(R"({"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}})") ==
        "c: rope_scaling: key is missing: wanted factor");
  CHECK(decoder_error(
            R"({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 0}})") ==
        "c: rope_scaling: factor: value out of range: got 0, wanted a positive number");
  CHECK(
      decoder_error(R"({"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 2,
                     "low_freq_factor": 4, "high_freq_factor": 1}})") ==
      "c: rope_scaling: high_freq_factor - low_freq_factor: value out of range: got -3, wanted a "
      "positive number");
  CHECK(decoder_error(small_phi(R"("rope_scaling": {"type": "longrope", "short_factor": [1],
                               "long_factor": [2, 4]})")) ==
        "c: rope_scaling: short_factor: wrong number of factors: got 1, wanted 2, one for two "
        "rotated numbers of a head");
  CHECK(decoder_error(small_phi(R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1],
                               "long_factor": [2, -4]})")) ==
        "c: rope_scaling: long_factor: value out of range: got -4, wanted a positive number");
  CHECK(decoder_error(small_phi(kPhiScaling, R"(, "sliding_window": 8)")) ==
        "c: sliding_window: attention windows are not supported: got 8, wanted at least "
        "max_position_embeddings = 64, where it has no effect");
  CHECK(decoder_error(small_phi(kPhiScaling, R"(, "sliding_window": 262144)")).empty());
  CHECK(
      decoder_error(R"({"model_type": "qwen2", "use_sliding_window": true, "num_hidden_layers": 30,
                     "max_window_layers": 21})") ==
      "c: sliding_window: attention windows are not supported: got 4096, wanted at least "
      "max_position_embeddings = 32768, where it has no effect");
  CHECK(
      decoder_error(R"({"model_type": "qwen2", "use_sliding_window": false, "max_window_layers": 21,
                     "sliding_window": 4096})")
          .empty());
  CHECK(decoder_error(R"({"model_type": "llama", "partial_rotary_factor": 0.01})") ==
        "c: partial_rotary_factor: the part of a head to rotate: got 1, wanted an even number, 2 "
        "to head_dim = 128");
  CHECK(decoder_error(R"({"model_type": "qwen2", "rope_scaling": {"type": "mrope",
                     "mrope_section": [16, 24, 20]}})") ==
        "c: rope_scaling: mrope_section: sections don't fit the head: got 60, wanted three numbers "
        "that add up to 64");
}

struct Published {
  const char* name;
  const char* config;
  std::int64_t parameters;
};

// Sizes of the model cards; memory for the weights is asked for, but never touched.
const Published kPublished[] = {
    {"Llama-3.2-1B", R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
      "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
      "vocab_size": 128256, "tie_word_embeddings": true, "max_position_embeddings": 131072})",
     1'235'814'400},
    {"Llama-3.2-3B", R"({"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192,
      "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
      "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": true})",
     3'212'749'824},
    {"SmolLM2-135M", R"({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
      "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
      "vocab_size": 49152, "tie_word_embeddings": true})",
     134'515'008},
    {"SmolLM2-360M", R"({"model_type": "llama", "hidden_size": 960, "intermediate_size": 2560,
      "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5,
      "vocab_size": 49152, "tie_word_embeddings": true})",
     361'821'120},
    {"SmolLM2-1.7B", R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
      "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32,
      "vocab_size": 49152, "tie_word_embeddings": true})",
     1'711'376'384},
    {"Qwen2.5-0.5B", R"({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
      "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
      "vocab_size": 151936, "tie_word_embeddings": true})",
     494'032'768},
    {"Qwen2.5-1.5B", R"({"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
      "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
      "vocab_size": 151936, "tie_word_embeddings": true})",
     1'543'714'304},
    {"Qwen2.5-3B", R"({"model_type": "qwen2", "hidden_size": 2048, "intermediate_size": 11008,
      "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
      "vocab_size": 151936, "tie_word_embeddings": true})",
     3'085'938'688},
    {"Phi-4-mini", R"({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
      "num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8,
      "vocab_size": 200064, "tie_word_embeddings": true})",
     3'836'021'760},
    // Untied: head and embeddings are counted both.
    {"Qwen2.5-7B", R"({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
      "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
      "vocab_size": 152064, "tie_word_embeddings": false})",
     7'615'616'512},
};

TEST_CASE("text models of the published sizes have the published numbers of parameters") {
  for (const Published& one : kPublished) {
    INFO(one.name);
    const TextModel model(TextModelConfig::parse(parse_json(one.config, "c"), "c"));
    std::int64_t total = 0;
    for (const auto& [name, value] : model.weights()) total += value.numel();
    CHECK(total == one.parameters);
  }
}

TEST_CASE("text models: the names of a layer's weights are the published ones") {
  const auto names = [](const std::string& type) {
    const TextModel model(TextModelConfig::parse(
        parse_json(R"({"model_type": ")" + type + R"(", "hidden_size": 8, "num_hidden_layers": 1,
                    "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
                    "head_dim": 4, "vocab_size": 8})",
                   "c"),
        "c"));
    std::string list;
    for (const auto& [name, value] : model.weights()) {
      const std::string prefix = "model.layers.0.";
      list += (name.starts_with(prefix) ? name.substr(prefix.size()) : name) + " ";
    }
    return list;
  };
  const std::string embeddings = "model.embed_tokens.weight ";
  const std::string norms = "input_layernorm.weight post_attention_layernorm.weight ";
  const std::string end = "model.norm.weight lm_head.weight ";
  const std::string mlp = "mlp.gate_proj.weight mlp.up_proj.weight mlp.down_proj.weight ";
  CHECK(names("llama") ==
        embeddings +
            "self_attn.q_proj.weight self_attn.k_proj.weight self_attn.v_proj.weight "
            "self_attn.o_proj.weight " +
            mlp + norms + end);
  CHECK(names("qwen2") == embeddings +
                              "self_attn.q_proj.weight self_attn.q_proj.bias "
                              "self_attn.k_proj.weight self_attn.k_proj.bias "
                              "self_attn.v_proj.weight self_attn.v_proj.bias "
                              "self_attn.o_proj.weight " +
                              mlp + norms + end);
  CHECK(names("qwen3") ==
        embeddings +
            "self_attn.q_proj.weight self_attn.k_proj.weight self_attn.v_proj.weight "
            "self_attn.o_proj.weight self_attn.q_norm.weight self_attn.k_norm.weight " +
            mlp + norms + end);
  CHECK(names("phi3") == embeddings +
                             "self_attn.qkv_proj.weight self_attn.o_proj.weight "
                             "mlp.gate_up_proj.weight mlp.down_proj.weight " +
                             norms + end);
}

}  // namespace
}  // namespace vlm
