// Checkpoint folders → models and back.
#include "vlm/models/registry.h"

#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"
#include "vlm/io/checkpoint.h"
#include "vlm/models/picture_cache.h"
#include "vlm/models/smolvlm/smolvlm.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"
#include "vlm/nn/cpu/int8/int8_weight.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

TEST_CASE("named parameters equal the keys of the published files") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny"}) {
    INFO(name);
    std::set<std::string> ours;
    for (const auto& [key, tensor] : load_model(fixture(name), {})->weights()) ours.insert(key);
    const auto keys = Checkpoint(fixture(name)).keys();
    CHECK(ours == std::set<std::string>(keys.begin(), keys.end()));
  }
}

TEST_CASE("a saved model has the same weights and side files") {
  const ScratchFolder folder;
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny"}) {
    INFO(name);
    const auto saved = folder.path() / name;
    const ModelPtr model = load_model(fixture(name), {.dtype = "stored"});
    save_model(*model, fixture(name), saved);
    const Checkpoint before(fixture(name)), after(saved);
    REQUIRE(before.keys() == after.keys());
    for (const std::string& key : before.keys()) CHECK(before.tensor(key).equal(after.tensor(key)));
    CHECK(std::filesystem::exists(saved / "tokenizer.json"));
    CHECK(std::filesystem::exists(saved / "preprocessor_config.json"));
    const std::string dtype = name == "idefics3_tiny" ? "bfloat16" : "float32";
    CHECK(load_json(saved / "config.json")["dtype"] == dtype);
    load_model(saved, {});
  }
}

TEST_CASE("a tied head is one parameter; untied weights stay apart with a warning") {
  const ModelPtr tied = load_model(fixture("smolvlm_odd"), {});
  const auto parameters = tied->module().named_parameters();
  CHECK(parameters["lm_head.weight"].is_same(parameters["model.text_model.embed_tokens.weight"]));

  const ScratchFolder folder;
  NamedTensors weights = tied->weights();
  weights.emplace_back("lm_head.weight", parameters["lm_head.weight"] + 1);
  save_model(*tied, fixture("smolvlm_odd"), folder.path());
  save_weights(folder.path(), weights);
  const ModelPtr apart = load_model(folder.path(), {});
  const auto kept = apart->module().named_parameters();
  CHECK(kept["lm_head.weight"].equal(parameters["lm_head.weight"] + 1));
  CHECK_FALSE(kept["lm_head.weight"].is_same(kept["model.text_model.embed_tokens.weight"]));
}

TEST_CASE("older key prefixes are understood") {
  const ScratchFolder folder;
  const ModelPtr model = load_model(fixture("smolvlm_tiny"), {});
  NamedTensors wrapped;
  for (const auto& [key, tensor] : model->weights())
    wrapped.emplace_back("base_model.model." + key, tensor);
  save_model(*model, fixture("smolvlm_tiny"), folder.path());
  save_weights(folder.path(), wrapped);
  const ModelPtr again = load_model(folder.path(), {});
  for (const auto& item : again->module().named_parameters()) {
    CHECK(item.value().equal(model->module().named_parameters()[item.key()]));
  }
}

TEST_CASE("matrices kept in bfloat16 compute as in float32; what isn't stored so is not touched") {
  const at::NoGradGuard no_grad;
  const ModelPtr wide = load_model(fixture("idefics3_tiny"), {});
  const ModelPtr kept =
      load_model(fixture("idefics3_tiny"), {.dtype = "float32", .mixed_precision = true});
  CHECK(kept->dtype() == at::kFloat);
  std::set<at::ScalarType> matrices, others;
  for (const auto& item : kept->module().named_parameters()) {
    const bool is_matrix = item.value().dim() == 2;
    (is_matrix ? matrices : others).insert(item.value().scalar_type());
  }
  CHECK(matrices == std::set{at::kBFloat16});
  CHECK(others == std::set{at::kFloat});

  const at::Tensor ids = at::arange(20, 40).unsqueeze(0);
  const Pixels pixels{.values = at::rand({2, 3, 32, 32}) * 2 - 1, .tokens = 2 * 4};
  const auto logits_of = [&](VisionLanguageModel& model) {
    return model.logits(model.decode(model.embed(ids, {}), {}, nullptr));
  };
  const auto error = [](const at::Tensor& a, const at::Tensor& b) {
    REQUIRE(a.scalar_type() == at::kFloat);
    return ((a - b).abs().max() / b.abs().max()).item<double>();
  };
  CHECK(error(logits_of(*kept), logits_of(*wide)) < 1e-5);
  CHECK(error(kept->encode(pixels), wide->encode(pixels)) < 1e-5);

  const ModelPtr stored_wide = load_model(fixture("smolvlm_tiny"), {.mixed_precision = true});
  for (const auto& item : stored_wide->module().named_parameters()) {
    CHECK(item.value().scalar_type() == at::kFloat);
  }
}

TEST_CASE("a mixed model multiplies in bfloat16 where dtype and processor say so") {
  const at::NoGradGuard no_grad;
  const auto load = [](const char* folder, const char* dtype) {
    return load_model(fixture(folder), {.dtype = dtype, .mixed_precision = true});
  };
  const at::ScalarType quick = has_bfloat16_products() ? at::kBFloat16 : at::kFloat;
  CHECK(load("idefics3_tiny", "auto")->product_dtype == quick);  // stored in bfloat16
  CHECK(load("idefics3_tiny", "float32")->product_dtype == at::kFloat);
  CHECK(load("smolvlm_tiny", "auto")->product_dtype == at::kFloat);  // stored in float32
  const ModelPtr narrow = load("smolvlm_tiny", "bfloat16");
  CHECK(narrow->product_dtype == quick);
  CHECK(narrow->dtype() == at::kFloat);
  const ModelPtr wide = load("smolvlm_tiny", "float32");
  const auto original = wide->module().named_parameters();
  for (const auto& item : narrow->module().named_parameters()) {
    const at::Tensor& weight = original[item.key()];
    const bool is_matrix = weight.dim() == 2;
    CHECK(item.value().equal(is_matrix ? weight.to(at::kBFloat16) : weight));
  }
  const at::Tensor ids = at::arange(20, 120).unsqueeze(0);
  const auto run = [&](VisionLanguageModel& model) {
    return model.logits(model.decode(model.embed(ids, {}), {}, nullptr));
  };
  check_close(run(*narrow), run(*wide), 0.05);
}

TEST_CASE("keys and values: auto follows the products of a CPU, other names what fits") {
  const auto load = [](const char* dtype) {
    return load_model(fixture("smolvlm_tiny"), {.dtype = dtype, .mixed_precision = true});
  };
  const ModelPtr wide = load("float32");
  CHECK(choose_kv_storage("auto", *wide) == KvStorage::kComputed);
  CHECK(choose_kv_storage("float32", *wide) == KvStorage::kComputed);
  CHECK(choose_kv_storage("bfloat16", *wide) == KvStorage::kBfloat16);
  CHECK(choose_kv_storage("int8", *wide) == KvStorage::kInt8);
  CHECK(choose_kv_storage("auto", *load("bfloat16")) ==
        (has_bfloat16_products() ? KvStorage::kBfloat16 : KvStorage::kComputed));
  for (const char* dtype : {"int8", "int4"}) {
    CHECK(choose_kv_storage("auto", *load(dtype)) == KvStorage::kBfloat16);
    CHECK(choose_kv_storage("float32", *load(dtype)) == KvStorage::kComputed);
  }
  CHECK_THROWS_WITH(choose_kv_storage("fp8", *wide),
                    "--kv-dtype: keys and values can't be held so: got 'fp8', wanted auto, "
                    "float32, bfloat16 or int8");
  const ModelPtr narrow = load_model(fixture("smolvlm_tiny"), {.dtype = "bfloat16"});
  CHECK(choose_kv_storage("auto", *narrow) == KvStorage::kComputed);
  CHECK(choose_kv_storage("bfloat16", *narrow) == KvStorage::kComputed);
  CHECK_THROWS_WITH(choose_kv_storage("int8", *narrow),
                    "--kv-dtype: keys and values can't be held so: got 'int8', wanted auto or "
                    "bfloat16, which the model computes in on this CPU");
}

TEST_CASE("a model in 8 bits: linear layers, near float32, without their weights") {
  const at::NoGradGuard no_grad;
  const auto load = [](const char* folder, const char* dtype) {
    return load_model(fixture(folder), {.dtype = dtype, .mixed_precision = true});
  };
  const at::Tensor ids = at::arange(20, 120).unsqueeze(0);
  const Pixels pixels{.values = at::rand({2, 3, 32, 32}) * 2 - 1, .tokens = 2 * 4};
  for (const char* folder : {"smolvlm_tiny", "idefics3_tiny"}) {
    INFO(folder);
    const ModelPtr wide = load(folder, "float32"), narrow = load(folder, "int8");
    CHECK(narrow->dtype() == at::kFloat);
    std::size_t linears = 0;
    const auto original = wide->module().named_modules();
    for (const auto& item : narrow->module().named_modules()) {
      const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
      if (!linear) continue;
      ++linears;
      REQUIRE(linear->int8());
      const auto whole = std::dynamic_pointer_cast<Linear>(original[item.key()]);
      CHECK(linear->dense_weight().equal(dequantize_int8(quantize_int8(whole->weight))));
    }
    CHECK(linears > 10);
    const auto run = [&](VisionLanguageModel& model) {
      return model.logits(model.decode(model.embed(ids, {}), {}, nullptr));
    };
    check_close(run(*narrow), run(*wide), 0.1);
    check_close(narrow->encode(pixels), wide->encode(pixels), 0.1);
    // Features of one don't pass for the other's.
    CHECK(digest_picture_side(*narrow) != digest_picture_side(*wide));

    // A model that was changed after it was loaded comes to the same.
    const ModelPtr late = load(folder, "bfloat16");
    store_weights(*late, "int8");
    const ModelPtr rounded = load(folder, "bfloat16");
    const auto expected = rounded->module().named_modules();
    for (const auto& item : late->module().named_modules()) {
      const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
      if (!linear) continue;
      const auto whole = std::dynamic_pointer_cast<Linear>(expected[item.key()]);
      CHECK(linear->dense_weight().equal(dequantize_int8(quantize_int8(whole->weight))));
    }
  }
  CHECK_THROWS(load_model(fixture("smolvlm_tiny"), {.dtype = "int8"}));
}

TEST_CASE("bfloat16 on the CPU stays near float32") {
  const at::NoGradGuard no_grad;
  const ModelPtr wide = load_model(fixture("smolvlm_tiny"), {});
  const ModelPtr narrow = load_model(fixture("smolvlm_tiny"), {.dtype = "bfloat16"});
  CHECK(narrow->dtype() == at::kBFloat16);
  const at::Tensor ids = at::arange(20, 40).unsqueeze(0);
  const auto run = [&](VisionLanguageModel& model) {
    return model.logits(model.decode(model.embed(ids, {}), {}, nullptr)).to(at::kFloat);
  };
  check_close(run(*narrow), run(*wide), 0.05);
}

TEST_CASE("random weights follow the seed and the config's deviation") {
  const ModelPtr first = make_model(fixture("smolvlm_tiny"));
  const ModelPtr second = make_model(fixture("smolvlm_tiny"));
  initialize_weights(first->module(), 0.1, at::detail::createCPUGenerator(3));
  initialize_weights(second->module(), 0.1, at::detail::createCPUGenerator(3));
  for (const auto& item : first->module().named_parameters()) {
    CHECK(item.value().equal(second->module().named_parameters()[item.key()]));
  }
  const auto parameters = first->module().named_parameters();
  CHECK(parameters["lm_head.weight"].std().item<double>() == Approx(0.1).epsilon(0.02));
  CHECK(parameters["model.text_model.norm.weight"].eq(1).all().item<bool>());
  CHECK(parameters["model.vision_model.post_layernorm.bias"].eq(0).all().item<bool>());
}

TEST_CASE("folders that are no model of ours are refused by name") {
  const ScratchFolder folder;
  CHECK_THROWS_WITH(load_model(folder.path(), {}), Contains("config.json: can't open the file"));
  save_text(folder.path() / "config.json", R"({"model_type": "llava"})");
  CHECK_THROWS_WITH(
      load_model(folder.path(), {}),
      Contains("config.json: unsupported model_type: got 'llava', wanted smolvlm, idefics3"));
  save_text(folder.path() / "config.json", "{}");
  CHECK_THROWS_WITH(load_model(folder.path(), {}), Contains("unsupported model_type: got none"));
}

}  // namespace
}  // namespace vlm
