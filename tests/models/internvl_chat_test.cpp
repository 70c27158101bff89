// What InternVL's original layout has beyond other families: prompts and pixels of the vendor's
// code, keys that stay as they were, adapters under the names of its modules
// (scripts/oracle/internvl_chat.py; every stage is in family_test.cpp).
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/module.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/family_prompts.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"
#include "vlm/io/checkpoint.h"
#include "vlm/models/internvl/internvl.h"
#include "vlm/models/internvl/internvl_chat_processor.h"
#include "vlm/models/internvl/internvl_conversation.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const char* const kChatModels[] = {"internvl_chat_tiny", "internvl_internlm2_tiny"};

TEST_CASE("prompts and pixels of InternVL's original layout equal the vendor's") {
  for (const std::string name : kChatModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < FamilyPrompt::kCount; ++number) {
      INFO(name << ", prompt " << number);
      const FamilyPrompt prompt = make_family_prompt(golden, number);
      const EncodedConversation encoded = encode_golden_prompt(*processor, prompt, golden, number);
      if (!golden.has(concat("pixel_values.", number))) continue;
      CHECK(encoded.pixels.values.equal(golden[concat("pixel_values.", number)]));
    }
  }
}

ContentPart words(const char* text) {
  return {.type = "text", .text = text};
}

std::string render_conversation(const std::string& name, const std::vector<Message>& messages,
                                bool is_open = true) {
  return make_conversation(name, {}, "config", {})
      .chat_template.render(name_media(messages, "<image>", "<video>"), is_open);
}

constexpr const char* kOldSystem =
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。";
constexpr const char* kNewSystem =
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。";

TEST_CASE("conversations are those of the vendor's code") {
  const Message asked{.role = "user", .content = {{.type = "image"}, words("What?")}};
  const Message said{.role = "assistant", .content = {words("A dog.")}};
  const std::string old = concat("<|im_start|>system\n", kOldSystem,
                                 "<|im_end|><|im_start|>user\n<image>\nWhat?<|im_end|>"
                                 "<|im_start|>assistant\n");
  CHECK(render_conversation("Hermes-2", {asked}) == old);
  CHECK(render_conversation("internlm2-chat", {asked}) == old);
  CHECK(render_conversation("internvl2_5", {asked, said, asked}) ==
        concat("<|im_start|>system\n", kNewSystem,
               "<|im_end|>\n<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
               "A dog.<|im_end|>\n<|im_start|>user\n<image>\nWhat?<|im_end|>\n"
               "<|im_start|>assistant\n"));
  CHECK(render_conversation("phi3-chat", {asked, said}, false) ==
        concat("<|system|>\n", kOldSystem,
               "<|end|><|user|>\n<image>\nWhat?<|end|><|assistant|>\nA dog.<|end|>"));
  const Message system{.role = "system", .content = {words("Be brief.")}};
  CHECK(render_conversation("internvl2_5", {system, said}, false) ==
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\nA dog.<|im_end|>\n");
  CHECK_THROWS_WITH(render_conversation("internvl2_5", {asked, system}),
                    Contains("a system message has to stand first"));
  CHECK_THROWS_WITH(render_conversation("vicuna", {asked}),
                    Contains("config: unknown conversation: got 'vicuna', wanted Hermes-2, "
                             "internlm2-chat, phi3-chat, internvl2_5"));
  CHECK(make_conversation("phi3-chat", {}, "", {}).end == "<|end|>");
  CHECK(make_conversation("internvl2_5", "Other.", "", {}).chat_template.render({}, false) ==
        "<|im_start|>system\nOther.<|im_end|>\n");
}

TEST_CASE("media stand in front of a text in lines, several pictures with their numbers") {
  const ContentPart image{.type = "image"}, video{.type = "video"};
  const std::vector<Message> named =
      name_media({{.role = "user", .content = {image, image, words("Same?")}},
                  {.role = "assistant", .content = {words("No.")}},
                  {.role = "user", .content = {image, image, words("And "), image, words("?")}},
                  {.role = "user", .content = {video, words("What happens?")}},
                  {.role = "user", .content = {words("See "), video, words("!")}},
                  {.role = "user", .plain_content = "as it is"}},
                 "<image>", "<video>");
  const std::vector<std::string> wanted = {"Image-1: <image>\nImage-2: <image>\nSame?",
                                           "No.",
                                           "Image-3: <image>\nImage-4: <image>\nAnd <image>?",
                                           "<video>\nWhat happens?",
                                           "See <video>!",
                                           "as it is"};
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(named[i].plain_content == wanted[i]);
}

TEST_CASE("what ends an answer is the token of the conversation") {
  for (const std::string name : kChatModels) {
    const auto ends = answer_ends(fixture(name));
    CHECK(
        ends ==
        std::vector{load_processor(fixture(name))->tokenizer().token_to_id("<|im_end|>").value()});
  }
  CHECK(answer_ends(fixture("internvl_tiny")).empty());
}

TEST_CASE("frames of the original layout are those of the published example") {
  const auto processor = load_processor(fixture("internvl_chat_tiny"));
  const FrameSampling& sampling = processor->frame_sampling();
  // int(step / 2 + round(step · k)) with step = (last - first) / 8.
  CHECK(sample_frames({.frame_count = 100, .fps = 10, .duration_s = 10}, sampling).indices ==
        std::vector<std::int64_t>{6, 18, 31, 43, 56, 68, 80, 93});
  CHECK(sample_frames({.frame_count = 3, .fps = 10, .duration_s = 0.3}, sampling).indices ==
        std::vector<std::int64_t>{0, 1});
  CHECK(processor->video_text({.times_s = {0, 1}}).text ==
        "Frame1: <img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>\n"
        "Frame2: <img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>");
}

TEST_CASE("the whole picture follows the tiles where use_thumbnail says so") {
  const auto with = load_processor(fixture("internvl_chat_tiny"));
  CHECK(with->picture_text(16, 32).units == 3);
  CHECK(with->picture_text(16, 16).units == 1);
  CHECK(with->picture_text(16, 32, /*is_whole=*/true).units == 1);
  const auto without = load_processor(fixture("internvl_internlm2_tiny"));
  CHECK(without->picture_text(24, 48).units == 2);
  CHECK(without->picture_text(24, 24).units == 1);
}

std::map<std::string, at::Tensor> read_weights(const fs::path& folder) {
  const Checkpoint checkpoint(folder);
  std::map<std::string, at::Tensor> weights;
  for (const std::string& key : checkpoint.keys()) weights[key] = checkpoint.tensor(key);
  return weights;
}

TEST_CASE("saving keeps the original layout, key by key and byte by byte") {
  for (const std::string name : kChatModels) {
    INFO(name);
    const ModelPtr model = load_model(fixture(name), {});
    const ScratchFolder source, folder;
    fs::copy(fixture(name), source.path(), fs::copy_options::recursive);
    source.write("modeling_internvl_chat.py", "# remote code\n");
    source.write("notes.py", "");
    save_model(*model, source.path(), folder.path());
    const auto before = read_weights(fixture(name)), after = read_weights(folder.path());
    REQUIRE(before.size() == after.size());
    for (const auto& [key, value] : before) {
      INFO(key);
      CHECK(after.at(key).equal(value));
    }
    CHECK(fs::exists(folder.path() / "modeling_internvl_chat.py"));
    CHECK(!fs::exists(folder.path() / "notes.py"));
    Json config = load_json(folder.path() / "config.json");
    CHECK(config["tie_word_embeddings"] == false);
    CHECK(config["dtype"] == "float32");
    config.erase("tie_word_embeddings");
    config.erase("dtype");
    config["torch_dtype"] = "float32";
    CHECK(config == load_json(fixture(name) / "config.json"));
  }
}

TEST_CASE("parts, head and projections of the original layout carry its names") {
  const ModelPtr model = load_model(fixture("internvl_internlm2_tiny"), {});
  CHECK(model->parts().at("lm_head") == "language_model.output");
  CHECK(model->canonical_key("base_model.model.mlp1.1.weight") == "mlp1.1.weight");
  CHECK(model->tied_weights().empty());
  const auto config = LoraConfig::parse({{"r", 2}, {"target_modules", "all-linear"}}, "c");
  const auto hit = attach_lora(model->module(), config, at::detail::createCPUGenerator(7));
  const std::set<std::string> names(hit.begin(), hit.end());
  CHECK(names == std::set<std::string>{"language_model.model.layers.0.attention.wo",
                                       "language_model.model.layers.0.attention.wqkv",
                                       "language_model.model.layers.0.feed_forward.w1",
                                       "language_model.model.layers.0.feed_forward.w2",
                                       "language_model.model.layers.0.feed_forward.w3", "mlp1.1",
                                       "mlp1.3", "vision_model.encoder.layers.0.attn.proj",
                                       "vision_model.encoder.layers.0.attn.qkv",
                                       "vision_model.encoder.layers.0.mlp.fc1",
                                       "vision_model.encoder.layers.0.mlp.fc2"});
}

// One branch for the whole of wqkv, as PEFT has it on the vendor's module.
TEST_CASE("an adapter of wqkv is added to its rows, and merged into them") {
  const ModelPtr model = load_model(fixture("internvl_internlm2_tiny"), {});
  const std::string layer = "language_model.model.layers.0.attention.wqkv";
  at::manual_seed(196);  // whatever other tests have drawn
  const at::Tensor a = at::randn({2, 16}), b = at::randn({32, 2});
  const ScratchFolder folder;
  save_safetensors(folder.path() / "adapter_model.safetensors",
                   {{"base_model.model." + layer + ".lora_A.weight", a},
                    {"base_model.model." + layer + ".lora_B.weight", b}});
  folder.write("adapter_config.json",
               R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["wqkv"]})");
  load_adapter(model->module(), folder.path());
  const at::Tensor ids = at::arange(10, 20).unsqueeze(0);
  const auto hidden = [&](VisionLanguageModel& one) {
    const at::NoGradGuard no_grad;
    return one.decode(one.embed_tokens(ids), {}, nullptr);
  };
  const at::Tensor adapted = hidden(*model);
  merge_lora(model->module());
  const at::Tensor base = read_weights(fixture("internvl_internlm2_tiny")).at(layer + ".weight");
  check_close(model->module().named_parameters()[layer + ".weight"], base + 3 * b.matmul(a));
  check_close(hidden(*model), adapted);
  const ModelPtr plain = load_model(fixture("internvl_internlm2_tiny"), {});
  CHECK(!at::allclose(hidden(*plain), adapted, 1e-2, 1e-2));
}

}  // namespace
}  // namespace vlm
