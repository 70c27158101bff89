// Adapters on a whole model against PEFT's: what they hit, what they compute, their files.
#include "vlm/nn/lora/lora.h"

#include <nlohmann/json.hpp>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/tiny_model.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

std::filesystem::path plain_adapter(const std::string& name) {
  return fixture(kTinyModel + "/adapters/" + name);
}

TEST_CASE("PEFT's adapters give PEFT's logits, before and after merging") {
  const at::NoGradGuard no_grad;
  const Golden golden(kTinyModel + "/adapters/golden.safetensors");
  for (const std::string kind : {"plain", "rslora", "patterns", "list"}) {
    INFO(kind);
    const ModelPtr model = load_tiny_model();
    load_adapter(model->module(), plain_adapter(kind));
    check_close(logits_of(*model, golden), golden[kind + ".logits"]);
    check_close(loss_of(logits_of(*model, golden), golden["labels"]).view({1}),
                golden[kind + ".loss"]);
    merge_lora(model->module());
    CHECK_FALSE(has_lora(model->module()));
    check_close(logits_of(*model, golden), golden[kind + ".logits"]);
    if (golden.has(kind + ".merged_logits")) {
      check_close(logits_of(*model, golden), golden[kind + ".merged_logits"]);
    }
  }
}

TEST_CASE("gradients of the branches equal PEFT's") {
  const Golden golden(kTinyModel + "/adapters/golden.safetensors");
  for (const std::string kind : {"plain", "rslora"}) {
    INFO(kind);
    const ModelPtr model = load_tiny_model();
    load_adapter(model->module(), plain_adapter(kind));
    loss_of(logits_of(*model, golden), golden["labels"]).backward();
    std::int64_t compared = 0;
    for (const auto& item : model->module().named_parameters()) {
      const std::string name = kind + ".grad.base_model.model." + item.key();
      if (!golden.has(name)) continue;
      INFO(name);
      check_close(item.value().grad(), golden[name], 3e-5);
      ++compared;
    }
    CHECK(compared >= 28);
  }
}

TEST_CASE("a new adapter changes nothing, and is the same for the same seed") {
  const at::NoGradGuard no_grad;
  const Golden golden(kTinyModel + "/adapters/golden.safetensors");
  LoraConfig config{.r = 4, .target_modules = std::string(".*text_model.*_proj")};
  at::Tensor first;
  for (int run = 0; run < 2; ++run) {
    const ModelPtr model = load_tiny_model();
    const auto hit = attach_lora(model->module(), config, at::detail::createCPUGenerator(7));
    CHECK(hit.size() == 14);
    check_close(logits_of(*model, golden), golden["base_logits"], 1e-6);
    const at::Tensor a =
        model->module()
            .named_parameters()["model.text_model.layers.0.self_attn.q_proj.lora_A.weight"];
    CHECK(a.abs().max().item<double>() <= 1 / std::sqrt(48.0));
    if (run == 0) first = a;
    CHECK(a.equal(first));
  }
}

TEST_CASE("a saved adapter loads with the same branches") {
  const at::NoGradGuard no_grad;
  const Golden golden(kTinyModel + "/adapters/golden.safetensors");
  const ScratchFolder folder;
  for (const std::string kind : {"plain", "patterns"}) {
    const ModelPtr model = load_tiny_model();
    const LoraConfig config = load_adapter(model->module(), plain_adapter(kind));
    save_adapter(model->module(), config, folder.path() / kind, "base");
    const ModelPtr again = load_tiny_model();
    load_adapter(again->module(), folder.path() / kind);
    check_close(logits_of(*again, golden), golden[kind + ".logits"]);
    const SafetensorsFile ours(folder.path() / kind / "adapter_model.safetensors");
    const SafetensorsFile theirs(plain_adapter(kind) / "adapter_model.safetensors");
    REQUIRE(ours.entries().size() == theirs.entries().size());
    for (const auto& [key, entry] : theirs.entries())
      CHECK(ours.tensor(key).equal(theirs.tensor(key)));
  }
}

TEST_CASE("target_modules select as PEFT does") {
  const Names list = std::vector<std::string>{"q_proj", "self_attn.v_proj", "lm_head"};
  CHECK(matches_module(list, "model.text_model.layers.0.self_attn.q_proj"));
  CHECK(matches_module(list, "model.vision_model.encoder.layers.0.self_attn.v_proj"));
  CHECK(matches_module(list, "lm_head"));
  CHECK_FALSE(matches_module(list, "model.text_model.layers.0.self_attn.xq_proj"));
  CHECK_FALSE(matches_module(list, "model.text_model.layers.0.mlp.v_proj"));
  const Names pattern = std::string(".*text_model.*\\.(q|v)_proj");
  CHECK(matches_module(pattern, "model.text_model.layers.0.self_attn.q_proj"));
  CHECK_FALSE(matches_module(pattern, "model.vision_model.encoder.layers.0.self_attn.q_proj"));
  CHECK_FALSE(matches_module(pattern, "model.text_model.layers.0.self_attn.q_proj.more"));
  CHECK(matches_module(std::string("all-linear"), "model.connector.modality_projection.proj"));
  CHECK_FALSE(matches_module(std::string("all-linear"), "lm_head"));
  CHECK_THROWS_WITH(matches_module(std::string("(q"), "x"),
                    Contains("target_modules: not a regular expression: got '(q'"));
}

LoraConfig parse(const char* text) {
  return LoraConfig::parse(OrderedJson::parse(text), "a.json");
}

TEST_CASE("adapter configs that can't be honoured are refused by name") {
  CHECK_THROWS_WITH(parse(R"({"peft_type": "IA3"})"),
                    "a.json: adapter type is not supported: got IA3, wanted LORA");
  CHECK_THROWS_WITH(parse(R"({"use_qalora": true})"),
                    "a.json: adapter option is not supported: got use_qalora = true");
  CHECK_THROWS_WITH(parse(R"({"init_lora_weights": "olora"})"),
                    Contains("init_lora_weights = \"olora\""));
  CHECK_THROWS_WITH(parse(R"({"bias": "some"})"), Contains("a.json: bias"));
  CHECK_THROWS_WITH(parse(R"({"r": 0})"), "a.json: r: rank out of range: got 0, wanted 1 to 65536");
  CHECK_THROWS_WITH(parse(R"({"lora_dropout": 1})"), Contains("dropout out of range"));
  CHECK_THROWS_WITH(parse(R"({"rank_pattern": {"q_proj": "x"}})"),
                    "a.json: rank_pattern: q_proj: not a positive number: got \"x\"");
  CHECK_THROWS_WITH(parse("[]"), "a.json: wrong type: got array, wanted object");
  CHECK(parse(R"({"r": 2, "something_new": 1, "modules_to_save": null})").r == 2);
  const auto patterns = parse(R"({"rank_pattern": {"z": 1, "a": 2}})").rank_pattern;
  CHECK(patterns[0].first == "z");  // the file's order decides which wins
}

TEST_CASE("adapter files that don't fit are refused by name") {
  const ScratchFolder folder;
  const ModelPtr model = load_tiny_model();
  CHECK_THROWS_WITH(load_adapter(model->module(), folder.path()),
                    Contains("adapter_config.json: can't open"));
  save_text(folder.path() / "adapter_config.json", R"({"r": 2, "target_modules": ["nothing"]})");
  CHECK_THROWS_WITH(load_adapter(model->module(), folder.path()),
                    "target_modules: no module matches: got [\"nothing\"]");
  save_text(folder.path() / "adapter_config.json",
            R"({"r": 2, "target_modules": ["connector.modality_projection.proj"]})");
  const std::string a = "base_model.model.model.connector.modality_projection.proj.lora_A.weight";
  const std::string b = "base_model.model.model.connector.modality_projection.proj.lora_B.weight";
  const auto file = folder.path() / "adapter_model.safetensors";
  save_safetensors(file, {{a, at::zeros({3, 128})}});
  CHECK_THROWS_WITH(
      load_adapter(model->module(), folder.path()),
      Contains(a + ": adapter tensor has the wrong shape: got [3, 128], wanted [2, 128]"));
  save_safetensors(file, {{a, at::zeros({2, 128})}});
  CHECK_THROWS_WITH(load_adapter(model->module(), folder.path()),
                    Contains("1 adapter tensors are missing: got no " + b));
  save_safetensors(file,
                   {{a, at::zeros({2, 128})}, {b, at::zeros({48, 2})}, {"x", at::zeros({1})}});
  CHECK_THROWS_WITH(load_adapter(model->module(), folder.path()),
                    Contains("x: adapter tensor has no place in the model"));
}

}  // namespace
}  // namespace vlm
