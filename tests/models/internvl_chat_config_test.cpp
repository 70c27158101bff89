// config.json of InternVL's original layout: what is read, and what is refused by which key.
#include <torch/nn/module.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/models/internvl/internvl.h"
#include "vlm/models/internvl/internvl_chat_config.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

Json chat_config(const std::string& changes, const std::string& name = "internvl_chat_tiny") {
  Json config = load_json(fixture(name + "/config.json"));
  config.merge_patch(parse_json(changes, "changes"));
  return config;
}

std::string chat_error(const std::string& changes) {
  try {
    InternVlChatConfig::parse(chat_config(changes), "c");
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_CASE("keys of the original layout's config that aren't supported are refused by name") {
  CHECK(chat_error("{}").empty());
  CHECK(chat_error(R"({"unknown": 1, "image_fold": null})").empty());
  CHECK(chat_error(R"({"vision_config": null})") == "c: key is missing: wanted vision_config");
  CHECK(chat_error(R"({"vision_config": [1]})") == "c: not an object: wanted vision_config");
  CHECK(chat_error(R"({"llm_config": null})") == "c: key is missing: wanted llm_config");
  CHECK(chat_error(R"({"template": null})") == "c: key is missing: wanted template");
  CHECK(chat_error(R"({"ps_version": "v1"})") ==
        "c: ps_version: unsupported value: got 'v1', wanted 'v2' (models before InternVL2 aren't "
        "read)");
  CHECK_THAT(chat_error(R"({"ps_version": null})"), Contains("c: ps_version: unsupported value"));
  CHECK(chat_error(R"({"select_layer": -2})") ==
        "c: select_layer: unsupported value: got -2, wanted -1");
  CHECK(chat_error(R"({"pad2square": true})") ==
        "c: pad2square: unsupported value: got true, wanted false");
  CHECK(chat_error(R"({"use_llm_lora": 16})") ==
        "c: use_llm_lora: unsupported value: got 16, wanted 0 (the weights hold adapters: merge "
        "them with the vendor's merge_lora.py)");
  CHECK_THAT(chat_error(R"({"use_backbone_lora": 8})"), Contains("c: use_backbone_lora: "));
  CHECK(chat_error(R"({"downsample_ratio": 0.3})") ==
        "c: downsample_ratio: value out of range: got 0.3, wanted 1 / n, where n divides the grid "
        "of 4 patches");
  CHECK(
      chat_error(R"({"force_image_size": 20})") ==
      "c: force_image_size: tiles aren't a whole number of tokens wide: got 20, wanted a multiple "
      "of 8 = patch_size / downsample_ratio");
  CHECK(chat_error(R"({"max_dynamic_patch": 0})") ==
        "c: max_dynamic_patch: value out of range: got 0, wanted 1 to 1024");
  CHECK(chat_error(R"({"min_dynamic_patch": 5})") ==
        "c: min_dynamic_patch: value out of range: got 5, wanted 1 to max_dynamic_patch = 4");
}

TEST_CASE("language models and encoders that aren't supported are refused by name") {
  CHECK(chat_error(R"({"llm_config": {"architectures": ["Phi3ForCausalLM"]}})") ==
        "c: llm_config: architectures: unsupported value: got Phi3ForCausalLM, wanted the class of "
        "one of these: llama, qwen2, qwen3, internlm2 (language models of other families, and "
        "mixtures of experts, aren't read in this layout)");
  CHECK_THAT(chat_error(R"({"llm_config": {"architectures": ["Qwen3MoeForCausalLM"]}})"),
             Contains("c: llm_config: architectures: unsupported value: got Qwen3MoeForCausalLM"));
  CHECK_THAT(chat_error(R"({"llm_config": {"architectures": null, "model_type": "internlm3"}})"),
             Contains("c: llm_config: model_type: unsupported value: got internlm3, wanted llama"));
  CHECK(chat_error(R"({"llm_config": {"architectures": null}})").empty());
  CHECK_THAT(chat_error(R"({"llm_config": {"moe_config": {}}})"),
             Contains("c: llm_config: moe_config: unsupported value"));
  CHECK_THAT(chat_error(R"({"llm_config": {"num_key_value_heads": 3}})"),
             Contains("c: llm_config: num_key_value_heads: does not divide num_attention_heads"));
  CHECK(chat_error(R"({"vision_config": {"use_moe": true}})") ==
        "c: vision_config: use_moe: unsupported value: got true, wanted false");
  CHECK_THAT(chat_error(R"({"vision_config": {"norm_type": "batch_norm"}})"),
             Contains("c: vision_config: norm_type: "));
  CHECK_THAT(chat_error(R"({"vision_config": {"hidden_act": "relu"}})"),
             Contains("c: vision_config: hidden_act: "));
  CHECK(chat_error(R"({"vision_config": {"num_attention_heads": 3}})") ==
        "c: vision_config: num_attention_heads: heads don't divide hidden_size: got 3, wanted a "
        "divisor of 16");
}

TEST_CASE("what the original layout's config leaves out has its classes' defaults") {
  const Json bare = chat_config(R"({"dynamic_image_size": null, "use_thumbnail": null,
      "max_dynamic_patch": null, "force_image_size": null, "system_message": "Hello."})");
  const auto config = InternVlChatConfig::parse(bare, "c");
  CHECK(config.tiles.side == 16);
  CHECK(config.tiles.max_patches == 1);  // without dynamic_image_size
  CHECK(!config.tiles.has_whole);
  CHECK(config.system_message == "Hello.");
  CHECK(!config.model.tie_word_embeddings);
  Json dynamic = bare;
  dynamic["dynamic_image_size"] = true;
  CHECK(InternVlChatConfig::parse(dynamic, "c").tiles.max_patches == 6);
  const Json intern = chat_config(R"({"llm_config": {"bias": null}})", "internvl_internlm2_tiny");
  CHECK(InternVlChatConfig::parse(intern, "c").model.text_config.has_input_biases());
  CHECK(InternVlChatConfig::parse(intern, "c").model.text_config.has_output_bias());
  Json encoder = chat_config("{}");
  encoder["vision_config"] = {{"image_size", 448}};
  encoder["force_image_size"] = 448;
  const InternVitConfig vit = InternVlChatConfig::parse(encoder, "c").model.vision_config;
  CHECK(vit.hidden_size == 3200);
  CHECK(vit.num_hidden_layers == 48);
  CHECK(vit.has_rms_norms);
  CHECK(vit.has_qk_norms);
  CHECK(!vit.attention_bias);
}

std::int64_t count_parameters(const std::string& llm) {
  // Memory for the weights is asked for, but never touched.
  Json config =
      parse_json(R"({"downsample_ratio": 0.5, "ps_version": "v2", "template": "internvl2_5",
      "max_dynamic_patch": 12, "vision_config": {"hidden_size": 1024, "intermediate_size": 4096,
      "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 448, "qkv_bias": true,
      "qk_normalization": false, "norm_type": "layer_norm"}})",
                 "c");
  config["llm_config"] = parse_json(llm, "llm");
  InternVlConfig model = InternVlChatConfig::parse(config, "c").model;
  std::int64_t total = 0;
  for (const auto& [name, value] : InternVl(model).weights()) total += value.numel();
  return total;
}

TEST_CASE("InternVL of the original layout has the published parameters") {
  CHECK(count_parameters(R"({"model_type": "qwen2", "vocab_size": 151674, "hidden_size": 896,
      "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
      "num_key_value_heads": 2})") == 938193024);
  CHECK(count_parameters(R"({"model_type": "internlm2", "vocab_size": 92553, "hidden_size": 2048,
      "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 16,
      "num_key_value_heads": 8, "bias": false})") == 2205754368);
  CHECK(count_parameters(R"({"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024,
      "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
      "num_key_value_heads": 8, "head_dim": 128})") == 1060897792);
}

// Of a copy of the fixture with some files changed or left out.
std::string folder_error(const std::function<void(const ScratchFolder&)>& change) {
  const ScratchFolder folder;
  fs::copy(fixture("internvl_chat_tiny"), folder.path(), fs::copy_options::recursive);
  change(folder);
  std::string text;
  try {
    load_model(folder.path(), {});
    load_processor(folder.path());
  } catch (const Error& error) {
    text = error.what();
  }
  for (std::size_t at = 0; (at = text.find(folder.path().string())) != std::string::npos;) {
    text.replace(at, folder.path().string().size(), "F");
  }
  return text;
}

TEST_CASE("folders of the original layout that don't fit together are named") {
  CHECK(folder_error([](const ScratchFolder&) {}).empty());
  // Another member's tokenizer, with its files and without, and none.
  const auto put_other_tokenizer = [](const ScratchFolder& folder) {
    fs::remove(folder.path() / "vocab.json");
    fs::copy(fixture("tokenizers/qwen2/tokenizer.json"), folder.path() / "tokenizer.json");
  };
  CHECK(folder_error(put_other_tokenizer) ==
        "F: the tokenizer's token for pictures isn't the model's: got <IMG_CONTEXT>, id -1, wanted "
        "image_token_id = 295 as in tokenizer_config.json or added_tokens.json");
  CHECK(folder_error([&](const ScratchFolder& folder) {
          put_other_tokenizer(folder);
          fs::remove(folder.path() / "added_tokens.json");
        }) ==
        "F: the tokenizer has no token for pictures: wanted <IMG_CONTEXT> in "
        "tokenizer_config.json's added_tokens_decoder, added_tokens.json or tokenizer.json");
  CHECK(folder_error([](const ScratchFolder& folder) {
          folder.write("config.json", chat_config(R"({"template": "chatml"})").dump());
        }) ==
        "F/config.json: template: unknown conversation: got 'chatml', wanted Hermes-2, "
        "internlm2-chat, phi3-chat, internvl2_5");
  // The config of another member: its decoder, its vocabulary.
  CHECK_THAT(folder_error([](const ScratchFolder& folder) {
               const Json other = load_json(fixture("internvl_internlm2_tiny/config.json"));
               folder.write("config.json", other.dump());
             }),
             Contains("weights don't fit the model") &&
                 Contains("language_model.model.layers.0.attention.wqkv.weight"));
  CHECK(folder_error([](const ScratchFolder& folder) {
          folder.write("config.json", chat_config(R"({"llm_config": {"vocab_size": 290}})").dump());
        }) ==
        "F/config.json: llm_config: vocab_size: the tokenizer's token for pictures isn't in the "
        "vocabulary: got 290, wanted more than its id, 295");
}

}  // namespace
}  // namespace vlm
