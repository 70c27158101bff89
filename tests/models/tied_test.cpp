// Adapters on embeddings and on output heads of a model where both are one weight, against PEFT's;
// and adapters whose modules are chosen in PEFT's other ways.
#include <nlohmann/json.hpp>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/tiny_model.h"
#include "vlm/core/json.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/quantize.h"

namespace vlm {
namespace {

const std::string kTied = "smolvlm_odd";
const std::string kHead = "lm_head.weight";
const std::string kTokens = "model.text_model.embed_tokens.weight";

// Whether head and embeddings are one weight behind a merge of the adapter.
const std::vector<std::pair<std::string, bool>> kTiedKinds = {
    {"head", false},        {"embeddings", false},
    {"both", false},        {"both_dora", false},
    {"both_tied", true},    {"tokens", true},
    {"tokens_head", false}, {"tokens_apart", false},
    {"saved_head", false},  {"saved_embeddings", false},
    {"saved_both", false},  {"saved_tied", true}};
const std::vector<std::string> kChoices = {"layers", "layers_pattern", "excluded",
                                           "excluded_pattern", "behind"};

ModelPtr load_tied(const LoadOptions& options = {}) {
  return load_model(fixture(kTied), options);
}

std::filesystem::path adapter_of(const std::string& kind) {
  return fixture(kTied + "/adapters/" + kind);
}

Golden open_tied_golden() {
  return Golden(kTied + "/adapters/golden.safetensors");
}

at::Tensor last_logits(VisionLanguageModel& model, const Golden& golden) {
  const at::Tensor logits = logits_of(model, golden);
  return logits.narrow(1, logits.size(1) - 8, 8);
}

bool is_one_weight(const VisionLanguageModel& model) {
  const auto parameters = model.module().named_parameters();
  return parameters[kHead].is_same(parameters[kTokens]);
}

TEST_CASE("PEFT's adapters on a tied model give PEFT's logits, before and after merging") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_tied_golden();
  const ScratchFolder folder;
  for (const auto& [kind, is_one] : kTiedKinds) {
    INFO(kind);
    const ModelPtr model = load_tied();
    load_adapter(model->module(), adapter_of(kind));
    check_close(last_logits(*model, golden), golden[kind + ".logits"], 1e-5);
    merge_lora(model->module());
    CHECK_FALSE(has_lora(model->module()));
    check_close(last_logits(*model, golden), golden[kind + ".logits"], 1e-5);
    CHECK(is_one_weight(*model) == is_one);
    CHECK(model->tied_weights().empty() == !is_one);
    // The checkpoint says at every level what it holds, and stands alone.
    save_model(*model, fixture(kTied), folder.path() / kind);
    const Json config = load_json(folder.path() / kind / "config.json");
    CHECK(config["tie_word_embeddings"] == is_one);
    CHECK(config["text_config"]["tie_word_embeddings"] == is_one);
    const SafetensorsFile file(folder.path() / kind / "model.safetensors");
    CHECK(file.entries().contains(kHead) == !is_one);
    const ModelPtr again = load_model(folder.path() / kind, {});
    check_close(last_logits(*again, golden), golden[kind + ".logits"], 1e-5);
  }
}

TEST_CASE("adapters whose modules are chosen by layer, by exclusion or by looking behind") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_tied_golden();
  for (const std::string& kind : kChoices) {
    INFO(kind);
    const ModelPtr model = load_tied();
    load_adapter(model->module(), adapter_of(kind));
    check_close(last_logits(*model, golden), golden[kind + ".logits"], 1e-5);
  }
}

TEST_CASE("a saved adapter of a tied model has PEFT's keys and config, and gives the same logits") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_tied_golden();
  const ScratchFolder folder;
  std::vector<std::string> kinds = kChoices;
  for (const auto& [kind, is_one] : kTiedKinds) kinds.push_back(kind);
  for (const std::string& kind : kinds) {
    INFO(kind);
    const ModelPtr model = load_tied();
    const LoraConfig config = load_adapter(model->module(), adapter_of(kind));
    save_adapter(model->module(), config, folder.path() / kind, "base");
    const SafetensorsFile ours(folder.path() / kind / "adapter_model.safetensors");
    const SafetensorsFile theirs(adapter_of(kind) / "adapter_model.safetensors");
    REQUIRE(ours.entries().size() == theirs.entries().size());
    for (const auto& [key, entry] : theirs.entries()) {
      INFO(key);
      REQUIRE(ours.entries().count(key) == 1);
      CHECK(ours.tensor(key).equal(theirs.tensor(key)));
    }
    const OrderedJson written = load_ordered_json(folder.path() / kind / "adapter_config.json");
    const OrderedJson read = load_ordered_json(adapter_of(kind) / "adapter_config.json");
    for (const char* key :
         {"rank_pattern", "alpha_pattern", "exclude_modules", "modules_to_save"}) {
      INFO(key);
      CHECK(written[key].dump() == read[key].dump());
    }
    const ModelPtr again = load_tied();
    load_adapter(again->module(), folder.path() / kind);
    check_close(last_logits(*again, golden), golden[kind + ".logits"], 1e-5);
  }
}

LoraConfig config_of(const std::string& kind) {
  return LoraConfig::parse(load_ordered_json(adapter_of(kind) / "adapter_config.json"), kind);
}

TEST_CASE("a new adapter on a tied model changes nothing, and leaves what it isn't on alone") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_tied_golden();
  const at::Tensor base = last_logits(*load_tied(), golden);
  for (const auto& [kind, is_one] : kTiedKinds) {
    INFO(kind);
    const ModelPtr model = load_tied();
    attach_lora(model->module(), config_of(kind), at::detail::createCPUGenerator(3));
    check_close(last_logits(*model, golden), base, 1e-5);
  }
}

TEST_CASE("rows of tokens get the gradients of the whole weight's rows, once") {
  const Golden golden = open_tied_golden();
  const std::vector<std::int64_t> ids = {300, 2, 41};
  const auto gradients = [&](const LoraConfig& config, const std::string& name) {
    const ModelPtr model = load_tied();
    attach_lora(model->module(), config, at::detail::createCPUGenerator(3));
    for (auto& parameter : model->module().parameters()) parameter.set_requires_grad(false);
    const auto owned = adapter_tensors(model->module(), config);
    CHECK(std::count_if(owned.begin(), owned.end(),
                        [&](const auto& tensor) { return tensor.name == name; }) == 1);
    at::Tensor parameter = model->module().named_parameters()[name];
    parameter.set_requires_grad(true);
    logits_of(*model, golden).square().mean().backward();
    return parameter.grad();
  };
  LoraConfig rows = config_of("tokens");
  LoraConfig whole = config_of("saved_tied");
  const at::Tensor found =
      gradients(rows, "model.text_model.embed_tokens.token_adapter.trainable_tokens_delta");
  const at::Tensor wanted = gradients(whole, kTokens);
  check_close(found, wanted.index_select(0, at::tensor(ids)), 1e-5);
}

TEST_CASE("what can't be on tied weights, or on tokens, is refused by name") {
  const auto attach = [](const char* keys) {
    attach_lora(load_tied()->module(), LoraConfig::parse(OrderedJson::parse(keys), "a.json"),
                at::detail::createCPUGenerator(1));
  };
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["q_proj"], "ensure_weight_tying": true})"),
                    Contains("ensure_weight_tying: nothing that is tied is trained"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["lm_head"], "ensure_weight_tying": true,
                               "init_lora_weights": "pissa"})"),
                    Contains("ensure_weight_tying: pissa splits weights"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["q_proj"], "trainable_token_indices": [403]})"),
                    Contains("trainable_token_indices: model.text_model.embed_tokens: no such "
                             "token: got 403, wanted 0 to 402"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["lm_head"], "trainable_token_indices": [3]})"),
                    Contains("trainable_token_indices: lm_head: the layer has an adapter as well"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["q_proj"], "trainable_token_indices": [3],
                               "modules_to_save": ["embed_tokens"]})"),
                    Contains("embed_tokens: the layer is trained as a whole as well"));
  CHECK_THROWS_WITH(
      attach(R"({"target_modules": ["q_proj"], "trainable_token_indices": {"v_proj": [3]}})"),
      Contains("the layer has no rows for tokens: wanted embeddings or lm_head"));
  CHECK_THROWS_WITH(
      attach(R"({"target_modules": ["q_proj"], "trainable_token_indices": {"tokens_embed": [3]}})"),
      Contains("trainable_token_indices: no module matches: got 'tokens_embed'"));
  CHECK_THROWS_WITH(attach(R"({"target_modules": ["q_proj"], "ensure_weight_tying": true,
      "trainable_token_indices": {"embed_tokens": [3], "lm_head": [4]}})"),
                    Contains("lm_head: tied layers have other rows"));
}

TEST_CASE("the position embedding takes an adapter, the convolution is refused by name") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_tied_golden();
  const ModelPtr model = load_tied();
  const LoraConfig config{.r = 2, .target_modules = std::vector<std::string>{"position_embedding"}};
  CHECK(attach_lora(model->module(), config, at::detail::createCPUGenerator(1)) ==
        std::vector<std::string>{"model.vision_model.embeddings.position_embedding"});
  const std::string name = "model.vision_model.embeddings.position_embedding.lora_embedding_A";
  model->module().named_parameters()[name].fill_(0.1);
  const at::Tensor adapted = last_logits(*model, golden);
  CHECK_FALSE(at::allclose(adapted, last_logits(*load_tied(), golden)));
  merge_lora(model->module());
  check_close(last_logits(*model, golden), adapted, 1e-5);
  const LoraConfig other{.target_modules = std::vector<std::string>{"patch_embedding"}};
  CHECK_THROWS_WITH(
      attach_lora(model->module(), other, at::detail::createCPUGenerator(1)),
      Contains("a module can't be adapted: got model.vision_model.embeddings.patch_embedding"));
}

TEST_CASE(
    "on a base in NF4 or bfloat16 the tied weight stays what it is, and merges as it computes") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_tied_golden();
  for (const auto& [kind, is_one] : kTiedKinds) {
    INFO(kind);
    const LoraConfig config = config_of(kind);
    const auto is_trained = [&](const std::string& module) { return config.saves_module(module); };
    const bool is_saved = !config.modules_to_save.empty();
    for (const LoadOptions& options :
         {LoadOptions{.quantize_nf4 = true, .is_trained = is_trained},
          LoadOptions{.dtype = "bfloat16", .mixed_precision = true, .is_trained = is_trained}}) {
      const ModelPtr model = load_tied(options);
      const auto dtype_of = [&](const std::string& name) {
        return model->module().named_parameters()[name].scalar_type();
      };
      CHECK(dtype_of(kTokens) == (is_saved ? at::kFloat : at::kBFloat16));
      load_adapter(model->module(), adapter_of(kind));
      const at::Tensor before = last_logits(*model, golden);
      merge_lora(model->module());
      CHECK(is_one_weight(*model) == is_one);
      // What is added to bfloat16 weights is rounded.
      check_close(last_logits(*model, golden), before, 3e-2);
    }
  }
}

}  // namespace
}  // namespace vlm
