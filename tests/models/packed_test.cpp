// Checkpoints in 4 and 8 bits: packings of other programs are their numbers, and what is saved
// comes back as it was.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cstring>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/thrown.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/models/packed/packed_checkpoint.h"
#include "vlm/models/quantized_checkpoint.h"
#include "vlm/models/weight_files.h"
#include "vlm/models/weight_rules.h"
#include "vlm/nn/weights/stored_int4.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

struct Packing {
  const char* name;
  PackedKind kind;
  bool keeps_codes;
};

constexpr Packing kPackings[] = {
    {"gptq", PackedKind::kGptq, false},
    {"gptq_symmetric", PackedKind::kGptq, true},
    {"gptq_order", PackedKind::kGptq, false},
    {"gptq_v2", PackedKind::kGptqV2, false},
    {"awq", PackedKind::kAwq, false},
    {"nf4", PackedKind::kNf4, true},
    {"nf4_flat", PackedKind::kNf4, true},
    {"packed", PackedKind::kCompressed, true},
    {"packed_channel", PackedKind::kCompressed, true},
    {"packed_zeros", PackedKind::kCompressed, false},
};

TEST_CASE("packed weights are the numbers of the packages, and keep their codes where they can") {
  const Checkpoint files(fixture("packed"));
  for (const auto& [name, kind, keeps_codes] : kPackings) {
    INFO(name);
    const auto packed = open_packed(files, concat(name, "."), kind);
    const at::Tensor golden = files.tensor(concat("golden.", name));
    check_close(packed->dense(), golden, 1e-6);
    REQUIRE(packed->fits_kernel() == keeps_codes);
    if (!keeps_codes) {
      CHECK(packed->stored() == nullptr);
      continue;
    }
    // Levels of NF4 are rounded to 127 steps, its scales to halves; other codes are exact.
    const bool is_nf4 = kind == PackedKind::kNf4;
    const at::Tensor stored = packed->stored()->dense();
    if (is_nf4) {
      check_close(stored, golden, 6e-3);
    } else {
      CHECK(stored.equal(golden));
    }
  }
}

// A folder whose weights are `files` and whose config says that they are quantized so.
ScratchFolder& packed_folder(ScratchFolder& scratch) {
  fs::create_symlink(fixture("packed/model.safetensors"), scratch.at("model.safetensors"));
  return scratch;
}

std::string packed_error(const Json& settings) {
  ScratchFolder scratch;
  packed_folder(scratch);
  const std::string error = thrown_by([&] {
    PackedCheckpoint(scratch.path(), {{"quantization_config", settings}});
  });
  const std::string begin = scratch.at("config.json") + ": quantization_config";
  return error.starts_with(begin) ? error.substr(begin.size()) : error;
}

TEST_CASE("a checkpoint's packed layers stand under the keys of numbers") {
  ScratchFolder scratch;
  packed_folder(scratch);
  const PackedCheckpoint files(scratch.path(), {{"quantization_config",
                                                 {{"quant_method", "bitsandbytes"},
                                                  {"load_in_4bit", true},
                                                  {"bnb_4bit_quant_type", "nf4"}}}});
  const std::vector<std::string> keys = files.keys();
  CHECK(std::ranges::count(keys, "nf4.weight") == 1);
  CHECK(std::ranges::count(keys, "nf4.weight.absmax") == 0);
  CHECK(std::ranges::count(keys, "golden.nf4") == 1);
  CHECK(files.entry("nf4.weight").shape == std::vector<std::int64_t>{48, 128});
  CHECK(files.stored_as("nf4.weight") == "NF4");
  CHECK(files.stored_as("golden.nf4") == "F32");
  CHECK(files.format("nf4.weight") == "int4");
  CHECK(files.format("golden.nf4").empty());
  check_close(files.tensor("nf4.weight"), files.tensor("golden.nf4"), 1e-6);
  // What the kernel can't hold becomes 8 bits.
  const Checkpoint all(fixture("packed"));
  NamedTensors some;
  for (const std::string& key : all.keys()) {
    if (key.find("gptq.") != std::string::npos || key == "golden.gptq") {
      some.emplace_back(key, all.tensor(key));
    }
  }
  const ScratchFolder other;
  save_safetensors(other.at("model.safetensors"), some);
  const PackedCheckpoint gptq(other.path(),
                              {{"quantization_config", {{"quant_method", "gptq"}, {"bits", 4}}}});
  CHECK(gptq.keys() == std::vector<std::string>{"golden.gptq", "gptq.weight"});
  CHECK(gptq.format("gptq.weight") == "int8");
  check_close(gptq.stored("gptq.weight")->dense(), gptq.tensor("golden.gptq"), 0.01);
}

TEST_CASE("ways to store weights in few bits that aren't read are named") {
  CHECK(packed_error({{"quant_method", "hqq"}}) ==
        ".quant_method: unsupported way to store weights in few bits: got 'hqq', wanted "
        "compressed-tensors, gptq, awq or bitsandbytes");
  CHECK(packed_error({{"bits", 4}}) ==
        ".quant_method: unsupported way to store weights in few bits: got 'none', wanted "
        "compressed-tensors, gptq, awq or bitsandbytes");
  CHECK(packed_error({{"quant_method", "gptq"}, {"bits", 3}}) ==
        ".bits: unsupported width: got 3, wanted 4");
  CHECK(packed_error({{"quant_method", "gptq"}, {"bits", 4}, {"checkpoint_format", "marlin"}}) ==
        ".checkpoint_format: unsupported format: got 'marlin', wanted gptq or gptq_v2");
  CHECK(packed_error({{"quant_method", "awq"}, {"bits", 4}, {"version", "gemv"}}) ==
        ".version: unsupported version: got 'gemv', wanted gemm");
  CHECK(packed_error({{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}}) ==
        ": unsupported kind of bitsandbytes: got 8 bits, wanted load_in_4bit with "
        "bnb_4bit_quant_type nf4");
  CHECK(packed_error({{"quant_method", "compressed-tensors"}, {"format", "float-quantized"}}) ==
        ".format: unsupported format: got 'float-quantized', wanted pack-quantized, "
        "int-quantized, mixed-precision");
  CHECK(packed_error({{"quant_method", "compressed-tensors"},
                      {"format", "pack-quantized"},
                      {"quantization_status", "frozen"}}) ==
        ".quantization_status: weights aren't stored in few bits: got 'frozen', wanted compressed");
}

// A packed weight with one tensor replaced.
std::string damaged_error(const std::string& base, PackedKind kind, const std::string& name,
                          const at::Tensor& value) {
  const Checkpoint files(fixture("packed"));
  const ScratchFolder scratch;
  NamedTensors tensors;
  for (const std::string& key : files.keys()) {
    tensors.emplace_back(key, key == base + name ? value : files.tensor(key));
  }
  save_safetensors(scratch.at("model.safetensors"), tensors);
  const std::string error = thrown_by([&] { open_packed(Checkpoint(scratch.path()), base, kind); });
  const std::string begin = scratch.path().string() + ": " + base;
  return error.starts_with(begin) ? error.substr(begin.size()) : error;
}

TEST_CASE("packed weights of sizes that don't fit are refused") {
  CHECK(damaged_error("gptq.", PackedKind::kGptq, "scales", at::ones({3, 47}).to(at::kHalf)) ==
        "scales: packed weight has the wrong shape: got [47, 3], wanted [48, groups of 96 inputs]");
  CHECK(damaged_error("gptq.", PackedKind::kGptq, "qweight", at::ones({12, 48})) ==
        "qweight: packed weight has an unsupported dtype: got F32, wanted I32");
  CHECK(damaged_error("gptq_order.", PackedKind::kGptq, "g_idx", at::full({96}, 3, at::kInt)) ==
        "scales: packed weight has the wrong shape: got [96], wanted groups below 3");
  CHECK(damaged_error("packed.", PackedKind::kCompressed, "weight_packed",
                      at::zeros({48, 11}, at::kInt)) ==
        "weight_packed: packed weight has the wrong shape: got [48, 11], wanted words of [48, 96]");
  CHECK(damaged_error("nf4.", PackedKind::kNf4, "weight.quant_map", at::ones({15})) ==
        "weight.quant_map: packed weight has the wrong shape: got [15], wanted sixteen levels");
  CHECK(
      damaged_error("nf4.", PackedKind::kNf4, "weight", at::zeros({5, 1}, at::kByte))
          .starts_with("weight.quant_state.bitsandbytes__nf4: packed weight has the wrong shape"));
  CHECK(damaged_error("nf4.", PackedKind::kNf4, "weight.absmax", at::ones({7}))
            .starts_with("weight.absmax: packed weight has the wrong shape"));
}

fs::path emoji_model() {
  return fs::path(VLM_SOURCE_DIR) / "models/easy-vqa-emoji";
}

at::Tensor some_logits(VisionLanguageModel& model) {
  const at::Tensor ids = at::arange(20, 120).unsqueeze(0);
  return model.logits(model.decode(model.embed(ids, {}), {}, nullptr));
}

std::string state_error(const std::string& state) {
  const at::Tensor bytes = at::empty({std::ssize(state)}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), state.data(), state.size());
  return damaged_error("nf4.", PackedKind::kNf4, "weight.quant_state.bitsandbytes__nf4", bytes);
}

TEST_CASE("what bitsandbytes says of a weight is checked") {
  const std::string begin = "weight.quant_state.bitsandbytes__nf4";
  CHECK(state_error("[").starts_with(begin + ": not valid JSON"));
  CHECK(state_error(R"({"shape": [48, 128]})") == begin + ": \"blocksize\" is missing");
  CHECK(state_error(R"({"shape": [48, 128], "blocksize": "64"})") ==
        begin + ".blocksize: wrong type: got string \"64\", wanted a number");
  CHECK(state_error(R"({"shape": [48, 127], "blocksize": 64})")
            .starts_with(begin + ": packed weight has the wrong shape: got [48, 127] in blocks of "
                                 "64, 3072 bytes"));
  CHECK(state_error(R"({"shape": [9223372036854775807, 128], "blocksize": 64})")
            .starts_with(begin + ": packed weight has the wrong shape"));
  CHECK(state_error(R"({"shape": [48, 128], "blocksize": 64, "nested_blocksize": 256,
                        "nested_offset": "x"})") ==
        begin + ".nested_offset: wrong type: got string \"x\", wanted a number");
}

TEST_CASE("a checkpoint in 4 and 8 bits loads as it was saved, without rounding again") {
  const at::NoGradGuard no_grad;
  const ModelPtr model = load_model(emoji_model(), {.dtype = "stored"});
  for (const std::string dtype : {"int4", "int8"}) {
    INFO(dtype);
    QuantizedLayers layers;
    for (const auto& [name, chosen] : choose_formats(*model, dtype)) {
      const at::Tensor weight = chosen.layer->dense_weight();
      const bool is_four = std::string(chosen.format->name) == "int4";
      layers.emplace(name, is_four ? quantize_groups_of(weight, {}) : quantize_rows_of(weight));
    }
    const ScratchFolder scratch;
    const fs::path folder = scratch.path() / "saved";
    save_quantized(*model, layers, emoji_model(), folder);
    const Json config = load_json(folder / "config.json");
    CHECK(config["quantization_config"]["format"] ==
          (dtype == "int4" ? "mixed-precision" : "int-quantized"));

    const ModelPtr kept = load_model(folder, {.mixed_precision = true, .keeps_codes = true});
    const ModelPtr wide = load_model(folder, {.dtype = "float32"});
    int layers_seen = 0;
    for (const auto& item : kept->module().named_modules()) {
      const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
      if (!linear) continue;
      ++layers_seen;
      INFO(item.key());
      const QuantizedLayer& saved = layers.at(item.key() + ".weight");
      CHECK(linear->map().weight->format() == (saved.bits == 4 ? "int4" : "int8"));
      CHECK(linear->dense_weight().equal(saved.dense()));
      CHECK(wide->module().named_parameters()[item.key() + ".weight"].equal(saved.dense()));
    }
    CHECK(layers_seen == static_cast<int>(layers.size()));
    const at::Tensor wanted = some_logits(*wide), found = some_logits(*kept);
    CHECK(((found - wanted).norm() / wanted.norm()).item<double>() < 0.06);
    // Saved as numbers again, it is no packed checkpoint any more.
    save_model(*wide, folder, scratch.path() / "numbers");
    CHECK_FALSE(is_packed(load_json(scratch.path() / "numbers" / "config.json")));
    const ModelPtr numbers = load_model(scratch.path() / "numbers", {});
    CHECK(some_logits(*numbers).equal(wanted));
  }
}

TEST_CASE("searched scales lose less than those of the largest magnitude, and are short numbers") {
  const at::Tensor weight = at::randn({32, 256}, at::detail::createCPUGenerator(3));
  const EvenCodes coded = search_even_codes(weight, {});
  CHECK(coded.scales.to(at::kBFloat16).to(at::kFloat).equal(coded.scales));
  CHECK(coded.codes.max().item<int>() == 15);
  CHECK(coded.codes.min().item<int>() == 0);
  const auto error = [&](const at::Tensor& found) {
    return (found - weight).square().sum().item<double>();
  };
  const double plain = error(dequantize_int4(quantize_int4(weight, kEvenLevels)));
  CHECK(error(dequantize_even(coded)) < 0.93 * plain);
  // What counts more is kept better, and a group of zeros stays one.
  at::Tensor importance = at::ones({256});
  importance.narrow(0, 0, 4).fill_(100);
  const at::Tensor weighted = dequantize_even(search_even_codes(weight, importance));
  const auto first = [](const at::Tensor& all) { return all.narrow(1, 0, 4); };
  CHECK((first(weighted) - first(weight)).square().sum().item<double>() <
        0.8 * (first(dequantize_even(coded)) - first(weight)).square().sum().item<double>());
  CHECK(dequantize_even(search_even_codes(at::zeros({2, 64}), {})).eq(0).all().item<bool>());
}

}  // namespace
}  // namespace vlm
