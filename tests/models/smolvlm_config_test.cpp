// config.json as published and as transformers 5 writes it → SmolVlmConfig, and what is refused.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/smolvlm/smolvlm.h"

namespace vlm {
namespace {

SmolVlmConfig parsed(const std::string& json) {
  return SmolVlmConfig::parse(parse_json(json, "c"), "c");
}

// A small config that is in order, with `patch` merged over it.
std::string error_of(const std::string& patch) {
  Json json = parse_json(R"({"image_token_id": 9, "scale_factor": 2,
      "vision_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                        "num_attention_heads": 4, "image_size": 32, "patch_size": 8},
      "text_config": {"vocab_size": 10, "hidden_size": 48, "intermediate_size": 64,
                      "num_hidden_layers": 2, "num_attention_heads": 6,
                      "num_key_value_heads": 2}})",
                         "c");
  try {
    json.merge_patch(parse_json(patch, "patch"));  // null takes a key away
    SmolVlmConfig::parse(json, "c");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("a published config with the older key names") {
  const SmolVlmConfig config = parsed(R"({
    "architectures": ["SmolVLMForConditionalGeneration"], "image_token_id": 49190,
    "model_type": "smolvlm", "pad_token_id": 128002, "scale_factor": 4,
    "tie_word_embeddings": false, "torch_dtype": "float32", "use_cache": false, "vocab_size": 49280,
    "text_config": {"_flash_attn_2_enabled": true, "attention_bias": false, "head_dim": 64,
      "hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536,
      "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
      "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
      "perceiver_config": {"num_key_value_heads": 1, "hidden_act": "relu"}, "qk_layer_norms": false,
      "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 100000, "torch_dtype": "bfloat16",
      "vocab_size": 49280},
    "vision_config": {"hidden_size": 768, "image_size": 512, "max_image_size": {"longest_edge": 512},
      "model_type": "smolvlm_vision", "num_attention_heads": 12, "patch_size": 16,
      "size": {"longest_edge": 2048}, "tie_word_embeddings": false, "use_base_siglip": true}})");
  CHECK(config.image_token_id == 49190);
  CHECK(config.scale_factor == 4);
  CHECK_FALSE(config.tie_word_embeddings);
  CHECK(config.image_seq_len() == 64);
  SiglipConfig vision = config.vision_config;
  CHECK(write_fields(vision.fields()).dump() ==
        R"({"hidden_size":768,"intermediate_size":3072,"num_hidden_layers":12,)"
        R"("num_attention_heads":12,"num_channels":3,"image_size":512,"patch_size":16,)"
        R"("hidden_act":"gelu_pytorch_tanh","layer_norm_eps":1e-06,"initializer_range":0.02})");
  DecoderConfig text = config.text_config;
  CHECK(write_fields(text.fields()).dump() ==
        R"({"vocab_size":49280,"hidden_size":576,"intermediate_size":1536,)"
        R"("num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,"head_dim":64,)"
        R"("max_position_embeddings":8192,"hidden_act":"silu","rms_norm_eps":1e-05,)"
        R"("rope_theta":100000.0,"initializer_range":0.02,"attention_bias":false,)"
        R"("mlp_bias":false})");
}

TEST_CASE("a config of transformers 5: rope_parameters, head_dim and key-value heads left out") {
  const SmolVlmConfig config = parsed(R"({
    "dtype": "float32", "image_token_id": 398, "model_type": "smolvlm", "scale_factor": 3,
    "tie_word_embeddings": true, "transformers_version": "5.23.0",
    "text_config": {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 6,
      "num_hidden_layers": 2, "num_key_value_heads": null, "head_dim": null, "vocab_size": 400,
      "rope_parameters": {"rope_theta": 273768.0, "rope_type": "default"}},
    "vision_config": {"hidden_size": 32, "image_size": 50, "num_attention_heads": 4,
      "patch_size": 8}})");
  CHECK(config.tie_word_embeddings);
  CHECK(config.text_config.rope_theta == 273768.0);
  CHECK(config.text_config.kv_heads() == 6);
  CHECK(config.text_config.head_size() == 8);
  CHECK(config.vision_config.grid_side() == 6);  // two pixels are over
  CHECK(config.image_seq_len() == 4);
}

TEST_CASE("what a file leaves out has the defaults of transformers' classes") {
  const SmolVlmConfig config = parsed(R"({"image_token_id": 5, "scale_factor": 7})");
  CHECK_FALSE(config.tie_word_embeddings);
  SiglipConfig vision = config.vision_config;
  CHECK(write_fields(vision.fields()).dump() ==
        R"({"hidden_size":1152,"intermediate_size":3072,"num_hidden_layers":12,)"
        R"("num_attention_heads":16,"num_channels":3,"image_size":224,"patch_size":32,)"
        R"("hidden_act":"gelu_pytorch_tanh","layer_norm_eps":1e-06,"initializer_range":0.02})");
  DecoderConfig text = config.text_config;
  CHECK(write_fields(text.fields()).dump() ==
        R"({"vocab_size":32000,"hidden_size":4096,"intermediate_size":11008,)"
        R"("num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":null,)"
        R"("head_dim":null,"max_position_embeddings":2048,"hidden_act":"silu",)"
        R"("rms_norm_eps":1e-05,"rope_theta":10000.0,"initializer_range":0.02,)"
        R"("attention_bias":false,"mlp_bias":false})");
  // The text model's own default when its part is there.
  CHECK(parsed(R"({"image_token_id": 5, "scale_factor": 7, "text_config": {}})")
            .text_config.rms_norm_eps == 1e-6);
  CHECK_THROWS_WITH(
      parsed("{}"),
      "c: scale_factor: does not divide the patch grid: got 2, wanted a divisor of 7");
  CHECK_THROWS_WITH(parsed(R"({"scale_factor": 1})"),
                    "c: image_token_id: outside the vocabulary: got 128257, wanted 0 to 31999");
}

TEST_CASE("values of the wrong type are refused") {
  CHECK(error_of("{}").empty());
  CHECK_THROWS_WITH(parsed("[]"), "c: wrong type: got array, wanted object");
  CHECK(error_of(R"({"vision_config": 3})") ==
        "c: vision_config: wrong type: got number 3, wanted object");
  CHECK(error_of(R"({"text_config": {"hidden_size": "48"}})") ==
        "c: text_config: hidden_size: wrong type: got string \"48\", wanted integer");
  CHECK(error_of(R"({"text_config": {"vocab_size": 18446744073709551615}})") ==
        "c: text_config: vocab_size: wrong type: got number 18446744073709551615, wanted integer");
  CHECK(error_of(R"({"text_config": {"hidden_act": "gelu"}})") ==
        "c: text_config: hidden_act: unknown value: got 'gelu', wanted silu");
  CHECK(error_of(R"({"vision_config": {"hidden_act": "quick_gelu"}})") ==
        "c: vision_config: hidden_act: unknown value: got 'quick_gelu', wanted gelu_pytorch_tanh");
}

TEST_CASE("rotary positions of an unknown kind are refused, in both spellings") {
  const std::string kinds = "wanted default, linear, dynamic, llama3, longrope, su, mrope";
  CHECK(error_of(R"({"text_config": {"rope_parameters": {"rope_type": "yarn"}}})") ==
        "c: text_config: rope_parameters: rope_type: unknown value: got 'yarn', " + kinds);
  CHECK(error_of(R"({"text_config": {"rope_scaling": {"rope_type": "yarn"}}})") ==
        "c: text_config: rope_scaling: rope_type: unknown value: got 'yarn', " + kinds);
  CHECK(error_of(R"({"text_config": {"rope_scaling": {"type": "ntk", "factor": 2.0}}})") ==
        "c: text_config: rope_scaling: type: unknown value: got 'ntk', " + kinds);
  CHECK(error_of(R"({"text_config": {"rope_theta": 0}})") ==
        "c: text_config: rope_theta: value out of range: got 0, wanted a positive number");
  CHECK(error_of(R"({"text_config": {"rope_parameters": {"rope_theta": -1}}})") ==
        "c: text_config: rope_theta: value out of range: got -1, wanted a positive number");
}

TEST_CASE("sizes of the vision part that can't work are refused") {
  const auto vision = [](const std::string& patch) {
    return error_of(R"({"vision_config": {)" + patch + "}}");
  };
  const std::string place = "c: vision_config: ";
  for (const std::string key : {"hidden_size", "intermediate_size", "num_attention_heads"}) {
    CHECK(vision("\"" + key + "\": 0") ==
          place + key + ": value out of range: got 0, wanted 1 to 1048576");
    CHECK(vision("\"" + key + "\": 1048577") ==
          place + key + ": value out of range: got 1048577, wanted 1 to 1048576");
  }
  CHECK(vision(R"("num_hidden_layers": -1)") ==
        place + "num_hidden_layers: value out of range: got -1, wanted 1 to 1024");
  CHECK(vision(R"("num_channels": 1)") ==
        place + "num_channels: unsupported value: got 1, wanted 3");
  CHECK(vision(R"("image_size": 16385)") ==
        place + "image_size: value out of range: got 16385, wanted 1 to 16384");
  CHECK(vision(R"("patch_size": 33)") ==
        place + "patch_size: value out of range: got 33, wanted 1 to 32");
  CHECK(vision(R"("num_attention_heads": 5)") ==
        place +
            "hidden_size: not divisible by num_attention_heads: got 32, wanted a multiple of 5");
}

TEST_CASE("sizes of the text part that can't work are refused") {
  const auto text = [](const std::string& patch) {
    return error_of(R"({"text_config": {)" + patch + "}}");
  };
  const std::string place = "c: text_config: ";
  for (const std::string key : {"hidden_size", "intermediate_size", "num_attention_heads"}) {
    CHECK(text("\"" + key + "\": 0") ==
          place + key + ": value out of range: got 0, wanted 1 to 1048576");
  }
  CHECK(text(R"("vocab_size": 16777217)") ==
        place + "vocab_size: value out of range: got 16777217, wanted 1 to 16777216");
  CHECK(text(R"("num_hidden_layers": 1025)") ==
        place + "num_hidden_layers: value out of range: got 1025, wanted 1 to 1024");
  CHECK(text(R"("num_key_value_heads": 7)") ==
        place + "num_key_value_heads: value out of range: got 7, wanted 1 to 6");
  CHECK(text(R"("num_key_value_heads": 4)") ==
        place +
            "num_key_value_heads: does not divide num_attention_heads: got 4, wanted a divisor "
            "of 6");
  CHECK(text(R"("head_dim": 7)") ==
        place + "head_dim: rotary positions need an even head_dim: got 7, wanted an even number");
  CHECK(text(R"("head_dim": 0)") ==
        place + "head_dim: rotary positions need an even head_dim: got 0, wanted an even number");
  CHECK(text(R"("max_position_embeddings": 0)") ==
        place + "max_position_embeddings: value out of range: got 0, wanted 1 to 4294967296");
}

TEST_CASE("parts that don't fit one another are refused") {
  CHECK(error_of(R"({"scale_factor": 3})") ==
        "c: scale_factor: does not divide the patch grid: got 3, wanted a divisor of 4");
  CHECK(error_of(R"({"scale_factor": 5})") ==
        "c: scale_factor: value out of range: got 5, wanted 1 to 4");
  CHECK(error_of(R"({"image_token_id": 10})") ==
        "c: image_token_id: outside the vocabulary: got 10, wanted 0 to 9");
  CHECK(error_of(R"({"image_token_id": -1})") ==
        "c: image_token_id: outside the vocabulary: got -1, wanted 0 to 9");
}

TEST_CASE(
    "sides that multiply to more than a machine holds are refused before memory is asked for") {
  CHECK(error_of(R"({"text_config": {"vocab_size": 16777216, "hidden_size": 1048576}})") ==
        "c: text_config: vocab_size and hidden_size make too large a model: got 16777216 x 1048576 "
        "numbers, wanted at most 8589934592 (is the file damaged?)");
  const auto text = [](const std::string& patch) {
    return error_of(R"({"text_config": {)" + patch + "}}");
  };
  CHECK_THAT(text(R"("hidden_size": 1048576, "vocab_size": 512)"),
             Contains("text_config: intermediate_size and hidden_size make too large a model"));
  CHECK_THAT(text(R"("num_attention_heads": 1048576, "head_dim": 1048576)"),
             Contains("text_config: num_attention_heads, head_dim and hidden_size make too large"));
  CHECK_THAT(text(R"("hidden_size": 32768, "intermediate_size": 131072, "num_hidden_layers": 100,
                     "num_attention_heads": 64)"),
             Contains("text_config: num_hidden_layers, intermediate_size and hidden_size make"));
  const auto vision = [](const std::string& patch) {
    return error_of(R"({"vision_config": {)" + patch + "}}");
  };
  CHECK_THAT(vision(R"("hidden_size": 1048576, "intermediate_size": 1)"),
             Contains("vision_config: intermediate_size and hidden_size make too large a model"));
  CHECK_THAT(vision(R"("hidden_size": 65536, "image_size": 16384, "patch_size": 16384)"),
             Contains("vision_config: hidden_size and patch_size make too large a model"));
  CHECK_THAT(vision(R"("image_size": 16384, "patch_size": 1, "hidden_size": 64)"),
             Contains("vision_config: the patch grid and hidden_size make too large a model"));
  CHECK_THAT(error_of(R"({"scale_factor": 1024,
                 "vision_config": {"image_size": 1024, "patch_size": 1, "hidden_size": 1024}})"),
             Contains("c: scale_factor and both hidden_size make too large a model"));
  // The largest of today's, several times over.
  CHECK(text(R"("hidden_size": 16384, "intermediate_size": 65536, "num_hidden_layers": 128,
                "vocab_size": 262144)") == "");
}

}  // namespace
}  // namespace vlm
