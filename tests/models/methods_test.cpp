// Adapters beyond plain LoRA on a whole model against PEFT's: DoRA, PiSSA, biases, whole modules;
// and adapters on an NF4 base.
#include <nlohmann/json.hpp>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/tiny_model.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/quantize.h"

namespace vlm {
namespace {

const std::vector<std::string> kKinds = {"dora", "pissa", "bias_all", "bias_lora_only", "modules"};

std::filesystem::path method_adapter(const std::string& name) {
  return fixture(kTinyModel + "/methods/" + name);
}

Golden open_golden() {
  return Golden(kTinyModel + "/methods/golden.safetensors");
}

TEST_CASE("PEFT's adapters of every method give PEFT's logits, before and after merging") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_golden();
  for (const std::string& kind : kKinds) {
    INFO(kind);
    const ModelPtr model = load_tiny_model();
    load_adapter(model->module(), method_adapter(kind));
    // PiSSA's base is the rest of a decomposition: another rounding.
    const double tolerance = kind == "pissa" ? 3e-5 : 1e-5;
    check_close(logits_of(*model, golden), golden[kind + ".logits"], tolerance);
    merge_lora(model->module());
    CHECK_FALSE(has_lora(model->module()));
    for (const auto& item : model->module().named_parameters())
      CHECK_FALSE(is_lora_parameter(item.key()));
    check_close(logits_of(*model, golden), golden[kind + ".logits"], tolerance);
  }
}

TEST_CASE("gradients of DoRA equal PEFT's") {
  const Golden golden = open_golden();
  const ModelPtr model = load_tiny_model();
  load_adapter(model->module(), method_adapter("dora"));
  loss_of(logits_of(*model, golden), golden["labels"]).backward();
  std::int64_t compared = 0;
  for (const auto& item : model->module().named_parameters()) {
    std::string key = "dora.grad.base_model.model." + item.key();
    if (item.key().ends_with("magnitude_vector")) key += ".weight";  // its name inside PEFT
    if (!golden.has(key)) continue;
    INFO(key);
    check_close(item.value().grad(), golden[key], 3e-5);
    ++compared;
  }
  CHECK(compared == 45);
}

TEST_CASE("a saved adapter of every method has PEFT's keys and gives the same logits") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_golden();
  const ScratchFolder folder;
  for (const std::string& kind : kKinds) {
    INFO(kind);
    const ModelPtr model = load_tiny_model();
    const LoraConfig config = load_adapter(model->module(), method_adapter(kind));
    save_adapter(model->module(), config, folder.path() / kind, "base");
    const SafetensorsFile ours(folder.path() / kind / "adapter_model.safetensors");
    const SafetensorsFile theirs(method_adapter(kind) / "adapter_model.safetensors");
    REQUIRE(ours.entries().size() == theirs.entries().size());
    for (const auto& [key, entry] : theirs.entries()) {
      INFO(key);
      REQUIRE(ours.entries().count(key) == 1);
      if (kind != "pissa") CHECK(ours.tensor(key).equal(theirs.tensor(key)));
    }
    const ModelPtr again = load_tiny_model();
    load_adapter(again->module(), folder.path() / kind);
    check_close(logits_of(*again, golden), golden[kind + ".logits"], 3e-5);
  }
}

TEST_CASE("PiSSA: begins with PEFT's directions, changes nothing, is saved as plain LoRA") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_golden();
  const ModelPtr model = load_tiny_model();
  LoraConfig config = LoraConfig::parse(
      load_ordered_json(method_adapter("pissa") / "adapter_config.json"), "adapter_config.json");
  CHECK(config.init_lora_weights == "pissa");
  attach_lora(model->module(), config, at::detail::createCPUGenerator(1));
  std::int64_t compared = 0;
  for (const auto& item : model->module().named_modules()) {
    const auto* linear = dynamic_cast<const Linear*>(item.value().get());
    if (!linear || !linear->lora() || !golden.has("pissa_initial." + item.key())) continue;
    INFO(item.key());
    // LAPACK's float32 directions differ in their last digits from processor to processor.
    check_close(linear->lora()->delta(), golden["pissa_initial." + item.key()], 3e-5);
    ++compared;
  }
  CHECK(compared == 7);
  check_close(logits_of(*model, golden), golden["base_logits"], 3e-5);
  config.rank_pattern = {};
  const ScratchFolder folder;
  save_adapter(model->module(), config, folder.path(), "base");
  const OrderedJson saved = load_ordered_json(folder.path() / "adapter_config.json");
  CHECK(saved["init_lora_weights"] == true);
  CHECK(saved["r"] == 2 * config.r);
  CHECK(saved["lora_alpha"] == 2 * config.lora_alpha);
  // What was trained so far is nothing, and that is what is added to the untouched base.
  const ModelPtr again = load_tiny_model();
  load_adapter(again->module(), folder.path());
  check_close(logits_of(*again, golden), golden["base_logits"], 3e-5);
}

TEST_CASE("new adapters of every method change nothing; gaussian A has deviation 1/r") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_golden();
  LoraConfig config{.r = 4, .target_modules = std::string("all-linear"), .use_dora = true};
  const ModelPtr dora = load_tiny_model();
  CHECK(attach_lora(dora->module(), config, at::detail::createCPUGenerator(7)).size() == 27);
  check_close(logits_of(*dora, golden), golden["base_logits"], 1e-5);
  config.use_dora = false;
  config.init_lora_weights = "gaussian";
  const ModelPtr gaussian = load_tiny_model();
  attach_lora(gaussian->module(), config, at::detail::createCPUGenerator(7));
  check_close(logits_of(*gaussian, golden), golden["base_logits"], 1e-6);
  std::vector<at::Tensor> drawn;
  for (const auto& item : gaussian->module().named_parameters()) {
    if (item.key().ends_with("lora_A.weight")) drawn.push_back(item.value().flatten());
  }
  CHECK(at::cat(drawn).std().item<double>() == Approx(0.25).epsilon(0.05));
}

TEST_CASE("DoRA with dropout, in training: as the formula of PEFT has it") {
  at::manual_seed(3);
  Linear linear(24, 16, true);
  linear.weight.set_data(at::randn({16, 24}));
  linear.bias.set_data(at::randn({16}));
  const auto branch = std::make_shared<LoraBranch>(
      linear, BranchOptions{.r = 2, .scaling = 1.5, .dropout = 0.5, .has_magnitude = true});
  linear.set_lora(branch);
  branch->a()->weight.set_data(at::randn({2, 24}));
  branch->b()->weight.set_data(at::randn({16, 2}));
  branch->magnitude.set_data(at::rand({16}) + 1);
  linear.train();
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({5, 24});
  at::manual_seed(11);
  const at::Tensor found = linear.forward(x);
  at::manual_seed(11);
  const at::Tensor dropped = at::dropout(x, 0.5, true);
  const at::Tensor sum = linear.weight + branch->delta();
  const at::Tensor factor = branch->magnitude / sum.norm(2, 1);
  const at::Tensor wanted = at::linear(x, linear.weight, linear.bias) +
                            (factor - 1) * at::linear(dropped, linear.weight) +
                            factor * at::linear(dropped, branch->delta());
  check_close(found, wanted, 1e-5);
}

TEST_CASE("modules to save are found by the end of their name and adapted by nothing else") {
  LoraConfig config{.modules_to_save = {"connector", "lm_head"}};
  CHECK(config.saves_module("lm_head"));
  CHECK(config.saves_module("model.connector.modality_projection.proj"));
  CHECK_FALSE(config.saves_module("model.text_model.embed_tokens"));
  const ModelPtr model = load_tiny_model();
  config.target_modules = std::string("all-linear");
  CHECK(attach_lora(model->module(), config, at::detail::createCPUGenerator(1)).size() == 26);
}

LoadOptions in_nf4() {
  return {.quantize_nf4 = true};
}

// The model with every NF4 weight widened, and every other one as the NF4 model has it.
ModelPtr widen(const VisionLanguageModel& quantized) {
  ModelPtr wide = load_tiny_model();
  std::map<std::string, const Linear*> linears;
  for (const auto& item : quantized.module().named_modules()) {
    const auto* linear = dynamic_cast<const Linear*>(item.value().get());
    if (linear && linear->nf4()) linears[item.key()] = linear;
  }
  for (const auto& item : wide->module().named_modules()) {
    auto* linear = dynamic_cast<Linear*>(item.value().get());
    if (linear && linears.count(item.key())) {
      linear->set_weight(linears[item.key()]->dense_weight());
    }
  }
  const auto others = quantized.module().named_parameters();
  for (auto& item : wide->module().named_parameters()) {
    if (const auto* own = others.find(item.key())) item.value().set_data(own->to(at::kFloat));
  }
  return wide;
}

TEST_CASE(
    "a model read into NF4: all linear layers but the head, the head and tokens in bfloat16") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_golden();
  const ModelPtr model = load_model(fixture(kTinyModel), in_nf4());
  const ModelPtr plain = load_tiny_model();
  std::int64_t quantized = 0;
  for (const auto& item : model->module().named_modules()) {
    const auto* linear = dynamic_cast<const Linear*>(item.value().get());
    if (!linear || item.key() == "lm_head") continue;
    INFO(item.key());
    REQUIRE(linear->nf4());
    const at::Tensor original = plain->module().named_parameters()[item.key() + ".weight"];
    CHECK(linear->dense_weight().equal(dequantize_nf4(quantize_nf4(original), at::kFloat)));
    ++quantized;
  }
  CHECK(quantized == 27);
  CHECK(model->module().named_parameters()["lm_head.weight"].scalar_type() == at::kBFloat16);
  CHECK(model->module().named_parameters()["model.text_model.embed_tokens.weight"].scalar_type() ==
        at::kBFloat16);
  CHECK(model->dtype() == at::kFloat);
  check_close(logits_of(*model, golden), logits_of(*widen(*model), golden), 1e-5);
  // Features of pictures follow from the codes, so caches have to see them.
  CHECK(model->picture_weights().size() > plain->picture_weights().size());
}

TEST_CASE("gradients of an adapter on an NF4 base are those on the widened base") {
  const Golden golden = open_golden();
  for (const std::string kind : {"dora", "bias_all"}) {
    INFO(kind);
    const ModelPtr model = load_model(fixture(kTinyModel), in_nf4());
    const ModelPtr wide = widen(*model);
    for (const ModelPtr& one : {model, wide}) {
      for (auto& parameter : one->module().parameters()) parameter.set_requires_grad(false);
      const LoraConfig config = load_adapter(one->module(), method_adapter(kind));
      for (const AdapterTensor& tensor : adapter_tensors(one->module(), config)) {
        at::Tensor(tensor.value).set_requires_grad(true);
      }
      loss_of(logits_of(*one, golden), golden["labels"]).backward();
    }
    const auto wanted = wide->module().named_parameters();
    std::int64_t compared = 0;
    for (const auto& item : model->module().named_parameters()) {
      if (!item.value().requires_grad()) continue;
      INFO(item.key());
      // The key bias moves nothing; its gradient is rounding.
      if (item.key().ends_with("vision_model.encoder.layers.0.self_attn.k_proj.bias")) continue;
      if (item.key().ends_with("vision_model.encoder.layers.1.self_attn.k_proj.bias")) continue;
      check_close(item.value().grad(), wanted[item.key()].grad(), 3e-5);
      ++compared;
    }
    CHECK(compared > 40);
  }
}

TEST_CASE("modules to save stay out of NF4; PiSSA can't split an NF4 weight") {
  const ModelPtr model =
      load_model(fixture(kTinyModel),
                 {.quantize_nf4 = true, .is_trained = [](const std::string& module) {
                    return module == "lm_head" || module.find("connector") != std::string::npos;
                  }});
  for (const char* name : {"lm_head.weight", "model.connector.modality_projection.proj.weight"}) {
    CHECK(model->module().named_parameters()[name].scalar_type() == at::kFloat);
  }
  LoraConfig config{.r = 2, .target_modules = std::vector<std::string>{"q_proj"}};
  config.init_lora_weights = "pissa";
  CHECK_THROWS_WITH(attach_lora(model->module(), config, at::detail::createCPUGenerator(1)),
                    Contains("pissa can't split the layer's weight: got weights in NF4"));
  config.r = 40;
  CHECK_THROWS_WITH(
      attach_lora(load_tiny_model()->module(), config, at::detail::createCPUGenerator(1)),
      Contains("got rank 40, wanted at most 32"));
}

TEST_CASE("merging into an NF4 base gives its widened weights and the adapter's part") {
  const at::NoGradGuard no_grad;
  const Golden golden = open_golden();
  const ModelPtr model = load_model(fixture(kTinyModel), in_nf4());
  load_adapter(model->module(), method_adapter("dora"));
  const at::Tensor before = logits_of(*model, golden);
  merge_lora(model->module());
  check_close(logits_of(*model, golden), before, 1e-5);
}

}  // namespace
}  // namespace vlm
