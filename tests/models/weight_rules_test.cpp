// Models whose weights are stored in fewer bits: which layers, of every family, and what they give.
#include "vlm/models/weight_rules.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <set>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/models/picture_cache.h"
#include "vlm/nn/cpu/int4/int4_weight.h"
#include "vlm/nn/lora/lora.h"

namespace vlm {
namespace {

const std::vector<std::string> kNarrowable = {
    "smolvlm_tiny",  "smolvlm_odd",   "idefics3_tiny",   "granite_tiny",  "llama_tiny",
    "qwen2_tiny",    "qwen3_tiny",    "phi3_tiny",       "qwen2_vl_tiny", "qwen2_5_vl_tiny",
    "qwen3_vl_tiny", "internvl_tiny", "internvl3_5_tiny"};

ModelPtr load_as(const std::filesystem::path& folder, const std::string& dtype) {
  return load_model(folder, {.dtype = dtype, .mixed_precision = true});
}

std::filesystem::path trained_model() {
  return std::filesystem::path(VLM_SOURCE_DIR) / "models/easy-vqa-emoji";
}

at::Tensor logits_of(VisionLanguageModel& model) {
  const at::Tensor ids = at::arange(20, 120).unsqueeze(0);
  return model.logits(model.decode(model.embed(ids, {}), {}, nullptr));
}

// Root mean square of the difference, over that of what is expected.
double distance(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

std::map<std::string, std::shared_ptr<Linear>> linears_of(const VisionLanguageModel& model) {
  std::map<std::string, std::shared_ptr<Linear>> found;
  for (const auto& item : model.module().named_modules()) {
    const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
    if (linear) found[item.key()] = linear;
  }
  return found;
}

TEST_CASE("int8 and int4 of every family: each layer's format, and logits that are theirs") {
  const at::NoGradGuard no_grad;
  std::set<std::string> formats;
  for (const std::string& name : kNarrowable) {
    const ModelPtr wide = load_as(fixture(name), "float32");
    const std::string text = wide->parts().at("text_model") + ".";
    for (const char* dtype : {"int8", "int4"}) {
      INFO(name << " " << dtype);
      const ModelPtr model = load_as(fixture(name), dtype);
      CHECK(model->dtype() == at::kFloat);
      for (const auto& [layer, linear] : linears_of(*model)) {
        INFO(layer);
        const bool is_int4 = dtype == std::string("int4") && layer.starts_with(text) &&
                             linear->out_features() % 16 == 0 && linear->in_features() % 32 == 0;
        CHECK(linear->stored().format() == (is_int4 ? "int4" : "int8"));
        CHECK(linear->weight.defined() == false);
        formats.insert(linear->stored().format());
      }
      // The same model with what is stored as numbers: only x is rounded beside it.
      const at::Tensor logits = logits_of(*model);
      for (const auto& [layer, linear] : linears_of(*model)) {
        linear->set_weight(linear->dense_weight());
      }
      CHECK(distance(logits, logits_of(*model)) < 0.1);
    }
  }
  CHECK(formats == std::set<std::string>{"int4", "int8"});
}

TEST_CASE("a trained model in 4 bits: near float32, the same on any number of threads") {
  const at::NoGradGuard no_grad;
  const ModelPtr wide = load_as(trained_model(), "float32"),
                 narrow = load_as(trained_model(), "int4"),
                 eight = load_as(trained_model(), "int8");
  const auto linears = linears_of(*narrow), original = linears_of(*wide);
  CHECK(linears.at("lm_head")->stored().format() == "int8");
  const std::string name = "model.text_model.layers.0.mlp.down_proj";
  CHECK(linears.at(name)->stored().format() == "int4");
  CHECK(linears.at(name)->dense_weight().equal(
      dequantize_int4(quantize_int4(original.at(name)->weight))));
  const at::Tensor logits = logits_of(*narrow);
  CHECK(distance(logits, logits_of(*wide)) < 0.4);
  // The vision tower is int8's, so features on disk are shared with it.
  CHECK(digest_picture_side(*narrow) == digest_picture_side(*eight));
  CHECK(digest_picture_side(*narrow) != digest_picture_side(*wide));

  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 2 : 1);
  const ModelPtr again = load_as(trained_model(), "int4");
  CHECK(logits_of(*again).equal(logits));
  at::set_num_threads(threads);

  // A model that was changed after it was loaded comes to the same; only once.
  const ModelPtr late = load_as(trained_model(), "bfloat16");
  const at::Tensor weight = linears_of(*late).at(name)->weight;
  for (int i = 0; i < 2; ++i) store_weights(*late, "int4");
  CHECK(linears_of(*late).at(name)->dense_weight().equal(dequantize_int4(quantize_int4(weight))));
  CHECK_THROWS(load_model(trained_model(), {.dtype = "int4"}));
}

TEST_CASE("a head that is tied to the embeddings gets 8 bits of its own, and they stay") {
  const at::NoGradGuard no_grad;
  bool any = false;
  for (const std::string& name : kNarrowable) {
    const auto tied = load_as(fixture(name), "bfloat16")->tied_weights();
    if (tied.empty()) continue;
    any = true;
    INFO(name);
    const ModelPtr narrow = load_as(fixture(name), "int4");
    const std::string embedding = tied.at("lm_head.weight");
    const at::Tensor rows = narrow->module().named_parameters()[embedding];
    CHECK(linears_of(*narrow).at("lm_head")->dense_weight().equal(
        find_weight_format("int8").store(rows)->dense()));
    CHECK(narrow->tied_weights().empty());
  }
  CHECK(any);
}

TEST_CASE("an adapter beside weights in 4 bits adds what it adds to them as numbers") {
  const at::NoGradGuard no_grad;
  const ModelPtr model = load_as(trained_model(), "int4");
  const at::Tensor base = logits_of(*model);
  attach_lora(model->module(),
              {.r = 4, .target_modules = std::vector<std::string>{"q_proj", "down_proj"}},
              at::detail::createCPUGenerator(1));
  CHECK(logits_of(*model).equal(base));  // B is zero
  for (const auto& [name, linear] : linears_of(*model)) {
    if (linear->lora())
      linear->lora()->b()->weight.normal_(0, 0.05, at::detail::createCPUGenerator(2));
  }
  const at::Tensor adapted = logits_of(*model);
  CHECK_FALSE(at::allclose(adapted, base, 1e-2, 1e-2));
  for (const auto& [name, linear] : linears_of(*model)) {
    if (linear->is_quantized()) linear->set_weight(linear->dense_weight());
  }
  CHECK(distance(adapted, logits_of(*model)) < 0.05);
}

}  // namespace
}  // namespace vlm
