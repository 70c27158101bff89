// Layers in 4 bits by what they are used for: GPTQ, calibration on rows, and bits by error.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "infer/quantize/calibration.h"
#include "infer/quantize/gptq.h"
#include "infer/quantize/quantize_model.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/thrown.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

at::Tensor seeded(at::IntArrayRef sizes, std::uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed));
}

TEST_CASE("GPTQ of inputs that have nothing in common is rounding to the nearest") {
  const at::Tensor weight = seeded({48, 160}, 1);
  const EvenCodes coded = gptq_codes(weight, at::eye(160)), nearest = search_even_codes(weight, {});
  CHECK(coded.scales.equal(nearest.scales));
  CHECK(coded.codes.equal(nearest.codes));
}

TEST_CASE("GPTQ leaves results nearer than rounding does") {
  // Inputs that go together, some of them much larger than others, and one that is always zero.
  const at::Tensor mix = seeded({192, 192}, 2), sizes = at::linspace(0.1, 3, 192);
  at::Tensor x = seeded({400, 192}, 3).matmul(mix) * sizes;
  x.select(1, 7).zero_();
  const at::Tensor sums = x.t().matmul(x), weight = seeded({64, 192}, 4);
  const double rounded = output_error(weight, dequantize_even(search_even_codes(weight, {})), sums);
  const double weighted =
      output_error(weight, dequantize_even(search_even_codes(weight, sums.diagonal())), sums);
  const double coded = output_error(weight, dequantize_even(gptq_codes(weight, sums)), sums);
  CHECK(weighted < rounded);
  CHECK(coded < 0.6 * weighted);
  // The measure itself, against the results.
  const at::Tensor found = dequantize_even(gptq_codes(weight, sums));
  const at::Tensor wanted = x.matmul(weight.t()), got = x.matmul(found.t());
  const double error = ((got - wanted).square().sum() / wanted.square().sum()).item<double>();
  CHECK(std::abs(coded - error) < 1e-3 * error);
  // Sums that say nothing.
  const EvenCodes blind = gptq_codes(weight, at::zeros({192, 192}));
  CHECK(blind.codes.sizes() == weight.sizes());
}

fs::path small_model() {
  return fs::path(VLM_SOURCE_DIR) / "models/easy-vqa-emoji";
}

std::string write_rows(const ScratchFolder& scratch) {
  std::string rows;
  const fs::path pictures = fs::path(VLM_SOURCE_DIR) / "examples/pictures";
  int count = 0;
  for (const auto& entry : fs::directory_iterator(pictures)) {
    if (entry.path().extension() != ".png" || ++count > 6) continue;
    rows += concat(R"({"image": ")", entry.path().string(),
                   R"(", "question": "what color is the shape?", "answer": "red"})", "\n");
  }
  REQUIRE(count > 3);
  return scratch.write("rows.jsonl", rows +
                                         R"({"image": "none.png", "question": "?", "answer": "x"})"
                                         "\n");
}

TEST_CASE("sums are those of a layer's inputs, and the model is as before") {
  const at::NoGradGuard no_grad;
  const ScratchFolder scratch;
  const ModelPtr model = load_model(small_model(), {});
  const auto processor = load_processor(small_model());
  const Calibration calibration(*model, *processor, write_rows(scratch), 4);
  CHECK(calibration.samples() >= 3);
  NamedLayers layers;
  for (const auto& item : model->module().named_modules()) {
    if (item.key().find("text_model.layers.0.") == std::string::npos) continue;
    const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
    if (linear) layers.emplace_back(item.key() + ".weight", linear);
  }
  REQUIRE(layers.size() == 7);
  const at::Tensor before = layers[0].second->dense_weight().clone();
  const auto sums = calibration.sums_of(layers, {});
  CHECK(layers[0].second->weight.equal(before));
  REQUIRE(sums.size() == 7);
  const std::string attention = "model.text_model.layers.0.self_attn.";
  CHECK(sums.at(attention + "q_proj.weight").is_same(sums.at(attention + "v_proj.weight")));
  CHECK_FALSE(sums.at(attention + "q_proj.weight").equal(sums.at(attention + "o_proj.weight")));
  for (const auto& [name, matrix] : sums) {
    INFO(name);
    CHECK(matrix.allclose(matrix.t(), 1e-4, 1e-4));
    CHECK(matrix.diagonal().gt(0).any().item<bool>());
  }
  CHECK_THROWS_WITH(
      Calibration(
          *model, *processor,
          scratch.write("bad.jsonl", R"({"image": "none.png", "question": "?", "answer": "x"})"),
          4),
      scratch.at("bad.jsonl") +
          ": no row can be used to calibrate: wanted rows as for finetune, "
          "with pictures, questions and answers");
}

TEST_CASE("calibration lessens what layers lose, and a size gives some of them more bits") {
  const ScratchFolder scratch;
  const auto processor = load_processor(small_model());
  const auto quantize = [&](QuantizeOptions options) {
    options.dtype = "int4";
    const ModelPtr model = load_model(small_model(), {});
    return quantize_model(*model, *processor, options);
  };
  const std::string rows = write_rows(scratch);
  const QuantizedModel plain = quantize({});
  const QuantizedModel calibrated = quantize({.calibration = rows, .samples = 4});
  CHECK(plain.bytes == calibrated.bytes);
  for (const QuantizedKind& kind : calibrated.kinds) {
    if (kind.fours == 0) continue;
    INFO(kind.name);
    const auto same = std::ranges::find(plain.kinds, kind.name, &QuantizedKind::name);
    CHECK(kind.error < same->error);
  }
  const double between = plain.bytes / 1e6 + 0.5;
  const QuantizedModel mixed = quantize({.calibration = rows, .samples = 4, .size_mb = between});
  std::int64_t fours = 0, eights = 0;
  for (const auto& [name, layer] : mixed.layers) {
    if (name.starts_with("model.text_model.")) ++(layer.bits == 4 ? fours : eights);
  }
  CHECK(fours > 0);
  CHECK(eights > 0);
  CHECK(mixed.bytes <= between * 1e6);
  CHECK(mixed.bytes > plain.bytes);
  CHECK(thrown_by([&] {
          quantize({.size_mb = 0.5});
        }).starts_with("--size-mb: the weights can't be so small: got 0.5, wanted at least "));
  CHECK(describe_quantized(plain).find("all weights: ") != std::string::npos);
}

}  // namespace
}  // namespace vlm::infer
