// Adapters on a whole model against PEFT's: what they hit, what they compute, their files.
#include "vlm/nn/lora/lora.h"

#include <nlohmann/json.hpp>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/tiny_model.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/target_rules.h"

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

// Whether a config with these keys gives a linear layer a branch.
bool hits(const char* keys, const std::string& name, LayerKind kind = LayerKind::kLinear) {
  return TargetRules(LoraConfig::parse(OrderedJson::parse(keys), "a.json")).hits({name, kind});
}

const std::string kQuery = "model.text_model.layers.3.self_attn.q_proj";
const std::string kVisionQuery = "model.vision_model.encoder.layers.3.self_attn.q_proj";

TEST_CASE("target_modules select as PEFT does") {
  const char* list = R"({"target_modules": ["q_proj", "self_attn.v_proj", "lm_head"]})";
  CHECK(hits(list, kQuery));
  CHECK(hits(list, "model.vision_model.encoder.layers.0.self_attn.v_proj"));
  CHECK(hits(list, "lm_head"));
  CHECK_FALSE(hits(list, "model.text_model.layers.0.self_attn.xq_proj"));
  CHECK_FALSE(hits(list, "model.text_model.layers.0.mlp.v_proj"));
  const char* pattern = R"({"target_modules": ".*text_model.*\\.(q|v)_proj"})";
  CHECK(hits(pattern, kQuery));
  CHECK_FALSE(hits(pattern, kVisionQuery));
  CHECK_FALSE(hits(pattern, kQuery + ".more"));
  const char* all = R"({"target_modules": "All-Linear"})";
  CHECK(hits(all, "model.connector.modality_projection.proj"));
  CHECK_FALSE(hits(all, "lm_head"));
  CHECK_FALSE(hits(all, "model.text_model.embed_tokens", LayerKind::kEmbedding));
  CHECK_THROWS_WITH(
      hits(R"({"target_modules": ".*norm"})", "model.text_model.norm", LayerKind::kOther),
      "target_modules: a module can't be adapted: got model.text_model.norm, wanted "
      "linear layers and embeddings");
}

TEST_CASE("patterns are Python's: what looks behind or ahead, and nothing that runs for ever") {
  const char* behind = R"({"target_modules": ".*(?<!vision_model)\\.encoder.*q_proj"})";
  CHECK_FALSE(hits(behind, kVisionQuery));
  CHECK(hits(R"({"target_modules": "^(?!.*vision).*\\.(?P<kind>q|k)_proj$"})", kQuery));
  CHECK_FALSE(hits(R"({"target_modules": "^(?!.*vision).*q_proj"})", kVisionQuery));
  CHECK_THROWS_WITH(hits(R"({"target_modules": "(q"})", kQuery),
                    "target_modules: not a regular expression: missing closing parenthesis: got "
                    "\"(q\"");
  CHECK_THROWS_WITH(
      hits(R"({"target_modules": "(?:[a-z_.0-9]+)+[!?]"})", kQuery + std::string(200, 'a')),
      Contains("target_modules: regular expression needs too many steps"));
}

TEST_CASE("exclude_modules and layers_to_transform take away as in PEFT") {
  const char* excluded =
      R"({"target_modules": ["q_proj"], "exclude_modules": ["layers.3.self_attn.q_proj"]})";
  CHECK_FALSE(hits(excluded, kQuery));
  CHECK(hits(excluded, "model.text_model.layers.2.self_attn.q_proj"));
  CHECK_FALSE(
      hits(R"({"target_modules": ["q_proj"], "exclude_modules": ".*vision.*"})", kVisionQuery));
  CHECK_FALSE(hits(R"({"target_modules": ["q_proj"], "modules_to_save": ["text_model"]})", kQuery));
  const char* layers =
      R"({"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [1, 3]})";
  CHECK(hits(layers, kQuery));
  CHECK(hits(layers, kVisionQuery));
  CHECK_FALSE(hits(layers, "model.text_model.layers.2.self_attn.q_proj"));
  CHECK_FALSE(hits(layers, "model.q_proj"));
  CHECK(hits(layers, "lm_head"));  // a whole name
  CHECK(hits(R"({"target_modules": ["q_proj"], "layers_to_transform": 3})", kQuery));
  const char* pattern = R"({"target_modules": ["q_proj"], "layers_to_transform": [3],
                            "layers_pattern": "text_model.layers"})";
  CHECK(hits(pattern, kQuery));
  CHECK_FALSE(hits(pattern, kVisionQuery));
}

TEST_CASE("of patterns for ranks and scales the first in the file's order counts") {
  const TargetRules rules(LoraConfig::parse(OrderedJson::parse(R"({"r": 4, "lora_alpha": 5,
      "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2, ".*": 9, "layers": 7},
      "alpha_pattern": {"^model\\.text.*": 1.5, "q_proj": 3}})"),
                                            "a.json"));
  CHECK(rules.rank(kQuery) == 2);
  CHECK(rules.rank("model.text_model.layers.3.self_attn.xq_proj") == 9);
  CHECK(rules.alpha(kQuery) == 1.5);
  CHECK(rules.alpha(kVisionQuery) == 3);
  CHECK(rules.alpha("lm_head") == 5);
}

void attach(const char* keys) {
  attach_lora(load_tiny_model()->module(), LoraConfig::parse(OrderedJson::parse(keys), "a.json"),
              at::detail::createCPUGenerator(1));
}

TEST_CASE("every entry of a new adapter has to have an effect") {
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["v_proj", "q_prj"]})"),
                    "target_modules: no module matches: got 'q_prj' (did you mean 'q_proj'?)");
  CHECK_THROWS_WITH(
      attach(R"({"target_modules": ["v_proj", "norm"]})"),
      Contains("target_modules: a module can't be adapted: got model.text_model.norm"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["v_proj", "self_attn"]})"),
                    Contains("a module can't be adapted: got model.vision_model.encoder.layers.0"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["v_proj", "fc1"], "exclude_modules": ["fc1"]})"),
                    Contains("an entry hits only modules that are left out: got 'fc1', like "
                             "model.vision_model.encoder.layers.0.mlp.fc1"));
  CHECK_THROWS_WITH(
      attach(R"({"target_modules": ".*qq_proj"})"),
      Contains("target_modules: no module matches: got '.*qq_proj' (it is a regular"));
  CHECK_THROWS_WITH(
      attach(R"({"target_modules": ["v_proj"], "exclude_modules": ["fc9"]})"),
      Contains("exclude_modules: no module matches: got 'fc9' (did you mean 'fc1'?)"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["v_proj"], "modules_to_save": ["conector"]})"),
                    Contains("modules_to_save: no module matches: got 'conector' (did you mean "
                             "'connector'?)"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["v_proj"], "layers_to_transform": [0, 9]})"),
                    "layers_to_transform: no adapted module is in the layer: got 9");
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["v_proj"], "rank_pattern": {"q_proj": 2}})"),
                    Contains("rank_pattern: no adapted module matches: got 'q_proj'"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["v_proj"], "alpha_pattern": {"o_proj": 2}})"),
                    Contains("alpha_pattern: no adapted module matches: got 'o_proj'"));
  CHECK_THROWS_WITH(
      attach(R"({"target_modules": ["v_proj"], "ensure_weight_tying": true})"),
      Contains("ensure_weight_tying: the model's output head has a weight of its own"));
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
                    "a.json: rank_pattern: q_proj: not a rank: got \"x\", wanted an integer, 1 "
                    "to 65536");
  for (const char* rank : {"0.5", "1e9", "0", "-1", "true"}) {
    CHECK_THROWS_WITH(parse((R"({"rank_pattern": {"q": )" + std::string(rank) + "}}").c_str()),
                      Contains("a.json: rank_pattern: q: not a rank"));
  }
  CHECK_THROWS_WITH(parse(R"({"alpha_pattern": {"q": 0}})"),
                    "a.json: alpha_pattern: q: not a scale: got 0, wanted a number above 0");
  CHECK_THROWS_WITH(parse(R"({"lora_alpha": -1})"), Contains("a.json: lora_alpha: scale out of"));
  CHECK_THROWS_WITH(parse(R"({"rank_pattern": ["q"]})"),
                    Contains("a.json: rank_pattern: wrong type"));
  CHECK_THROWS_WITH(parse(R"({"layers_to_transform": [-1], "target_modules": ["q"]})"),
                    Contains("a.json: layers_to_transform: not an index: got -1"));
  CHECK_THROWS_WITH(parse(R"({"layers_to_transform": [1], "target_modules": "q"})"),
                    "a.json: layers_to_transform: needs a list in target_modules: got [1]");
  CHECK_THROWS_WITH(parse(R"({"layers_pattern": ["layers"], "target_modules": ["q"]})"),
                    Contains("a.json: layers_pattern: needs layers_to_transform"));
  CHECK_THROWS_WITH(parse(R"({"trainable_token_indices": [3, 3]})"),
                    Contains("trainable_token_indices: an index is given twice: got [3,3]"));
  CHECK_THROWS_WITH(parse(R"({"trainable_token_indices": {"lm_head": []}})"),
                    Contains("trainable_token_indices: lm_head: wrong type"));
  CHECK_THROWS_WITH(parse(R"({"kasa_config": {"beta": 1}})"),
                    Contains("adapter option is not supported: got kasa_config"));
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
