// Models in GGUF files: what the Python package wrote computes as the checkpoint that it was made
// of, and what is exported comes back.
#include <ATen/ATen.h>

#include "tests/support/environment_guard.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/tiny_model.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/io/gguf/gguf_file.h"
#include "vlm/models/gguf/gguf_export.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/gguf/gguf_tokenizer.h"
#include "vlm/models/weight_files.h"
#include "vlm/nn/weights/stored_int4.h"
#include "vlm/text/tokenizer.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// A cache of its own.
struct GgufCache {
  EnvironmentGuard environment;
  ScratchFolder scratch;
  GgufCache() { ::setenv("XDG_CACHE_HOME", scratch.at("cache").c_str(), 1); }
};

at::Tensor text_logits(VisionLanguageModel& model) {
  const at::Tensor ids = at::arange(20, 60).unsqueeze(0);
  return model.logits(model.decode(model.embed(ids, {}), {}, nullptr));
}

// Root mean square of the difference, over that of what is expected.
double distance_of(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

fs::path gguf_fixture(const std::string& name) {
  return fixture("gguf/" + name + ".gguf");
}

TEST_CASE("GGUF: text models of the Python package compute as their checkpoints") {
  const GgufCache cache;
  const at::NoGradGuard no_grad;
  for (const std::string name : {"llama_tiny", "qwen2_tiny"}) {
    INFO(name);
    const fs::path folder = find_model_folder(gguf_fixture(name));
    const ModelPtr model = load_model(folder, {}), wanted = load_model(fixture(name), {});
    for (const auto& [key, weight] : wanted->weights()) {
      INFO(key);
      CHECK(model->module().named_parameters()[key].equal(weight));
    }
    check_close(text_logits(*model), text_logits(*wanted), 1e-5);
    CHECK(model->weights().size() == wanted->weights().size());
  }
}

TEST_CASE("GGUF: the encoder beside a model, with the layers of MLPs named the old way round") {
  const GgufCache cache;
  const at::NoGradGuard no_grad;
  const fs::path given = gguf_fixture("mmproj-smolvlm_tiny");
  const fs::path folder = find_model_folder(gguf_fixture("smolvlm_tiny"), given);
  CHECK(find_model_folder(gguf_fixture("smolvlm_tiny")) == folder);  // it lies beside
  const ModelPtr model = load_model(folder, {}), wanted = load_tiny_model();
  for (const auto& [key, weight] : wanted->weights()) {
    INFO(key);
    CHECK(model->module().named_parameters()[key].equal(weight));
  }
  const Golden golden("smolvlm_tiny/golden.safetensors");
  const auto features_of = [&](VisionLanguageModel& one) {
    return dynamic_cast<SmolVlm&>(one).encode_tiles(
        golden["pixel_values"].flatten(0, 1),
        golden["pixel_attention_mask"].flatten(0, 1).to(at::kBool));
  };
  check_close(features_of(*model), features_of(*wanted), 1e-6);
  check_close(text_logits(*model), text_logits(*wanted), 1e-6);
  const auto processor = load_processor(folder), original = load_processor(fixture(kTinyModel));
  CHECK(processor->picture_settings() == original->picture_settings());
  const std::vector<Message> question = {{"user", {{"image"}, {"text", "Which colour is it?"}}}};
  const Image picture{.height = 40, .width = 64, .pixels = std::vector<std::uint8_t>(40 * 64 * 3)};
  const auto ids_of = [&](const Processor& one) {
    return one.encode_prompt(question, join_media({one.process_picture(picture, false, {})})).ids;
  };
  CHECK(ids_of(*processor) == ids_of(*original));
}

// A string, or an array of bytes.
std::string hard_text(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  std::string text;
  for (const Json& byte : json) text += static_cast<char>(byte.get<int>());
  return text;
}

TEST_CASE("GGUF: a tokenizer that went through a file gives the same ids for hard texts") {
  const Json texts = load_json(fixture("tokenizers/texts.json"));
  for (const std::string name : {"smolvlm", "gpt2", "qwen2", "llama3"}) {
    INFO(name);
    const fs::path folder = fixture("tokenizers/" + name);
    const auto original = load_tokenizer(folder);
    const ScratchFolder scratch;
    save_gguf(scratch.at("t.gguf"), gguf_tokenizer_pairs(folder, original->vocab_size() + 3), {});
    for (const SideFile& file : make_gguf_tokenizer(GgufFile(scratch.at("t.gguf")).header())) {
      scratch.write(file.name, file.text);
    }
    const auto tokenizer = load_tokenizer(scratch.path());
    CHECK(tokenizer->vocab_size() == original->vocab_size());
    for (const Json& json : texts) {
      const std::string text = hard_text(json);
      INFO(text);
      const auto ids = original->encode(text);
      CHECK(tokenizer->encode(text) == ids);
      CHECK(tokenizer->decode(ids, false) == original->decode(ids, false));
      CHECK(tokenizer->decode(ids, true) == original->decode(ids, true));
    }
  }
}

TEST_CASE("GGUF: an export in float32 comes back as it was, in float16 nearly") {
  const GgufCache cache;
  const at::NoGradGuard no_grad;
  for (const std::string name :
       {"smolvlm_tiny", "smolvlm_odd", "llama_tiny", "qwen2_tiny", "qwen3_tiny"}) {
    const ModelPtr wanted = load_model(fixture(name), {});
    for (const std::string type : {"f32", "f16", "bf16", "q8_0"}) {
      INFO(name << " " << type);
      const ScratchFolder scratch;
      const auto files = export_gguf(*wanted, fixture(name), type, name, scratch.path());
      const bool shows_pictures = name.starts_with("smolvlm");
      REQUIRE(files.size() == (shows_pictures ? 2 : 1));
      const fs::path folder = find_model_folder(files[0]);
      const ModelPtr model = load_model(folder, {.dtype = "float32"});
      const double most = type == "f32" ? 2e-6 : type == "f16" ? 2e-3 : 3e-2;
      CHECK(distance_of(text_logits(*model), text_logits(*wanted)) < most);
      if (type == "f32") {
        for (const auto& [key, weight] : wanted->weights()) {
          INFO(key);
          CHECK(model->module().named_parameters()[key].equal(weight));
        }
      }
      if (shows_pictures) {
        CHECK(load_processor(folder)->picture_settings() ==
              load_processor(fixture(name))->picture_settings());
      }
    }
  }
}

fs::path default_model() {
  return fs::path(VLM_SOURCE_DIR) / "models/easy-vqa-emoji";
}

TEST_CASE("GGUF: codes of four bits stay as they are, other blocks become eight bits") {
  const GgufCache cache;
  const at::NoGradGuard no_grad;
  const ModelPtr original = load_model(default_model(), {.dtype = "float32"});
  for (const std::string type : {"q4_0", "iq4_nl", "q8_0"}) {
    INFO(type);
    const ScratchFolder scratch;
    const auto files = export_gguf(*original, default_model(), type, "emoji", scratch.path());
    const fs::path folder = find_model_folder(files[0]);
    const std::unique_ptr<TensorSource> source = open_weights(folder);
    const auto& coded = dynamic_cast<const CodedTensors&>(*source);
    const ModelPtr model = load_model(folder, {.mixed_precision = true, .keeps_codes = true});
    int fours = 0, eights = 0;
    for (const auto& item : model->module().named_modules()) {
      const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
      if (!linear) continue;
      INFO(item.key());
      const std::string format = linear->map().weight->format();
      const bool is_text = item.key().starts_with("model.text_model.");
      CHECK(format == (is_text && type != "q8_0" ? "int4" : "int8"));
      ++(format == "int4" ? fours : eights);
      const at::Tensor numbers = coded.tensor(item.key() + ".weight");
      if (format == "int4") {
        CHECK(linear->dense_weight().equal(numbers));  // no rounding between
      } else {
        CHECK(distance_of(linear->dense_weight(), numbers) < 0.01);
      }
    }
    CHECK(fours == (type == "q8_0" ? 0 : 21));
    CHECK(eights > 0);
    const ModelPtr wide = load_model(folder, {.dtype = "float32"});
    CHECK(distance_of(text_logits(*model), text_logits(*wide)) < 0.05);
    // With --dtype int8 all are of eight bits, whatever the file holds.
    const ModelPtr eight =
        load_model(folder, {.dtype = "int8", .mixed_precision = true, .keeps_codes = true});
    CHECK(distance_of(text_logits(*eight), text_logits(*wide)) < 0.05);
  }
}

// A file of the fixture's keys, changed.
std::string model_error(const std::string& key, const GgufValue& value) {
  const GgufCache cache;
  const GgufFile file(gguf_fixture("smolvlm_tiny"));
  GgufPairs pairs;
  for (const auto& [name, kept] : file.header().values) {
    pairs.push_back({name, name == key ? value : kept});
  }
  if (!file.header().find(key)) pairs.push_back({key, value});
  const fs::path changed = cache.scratch.at("x.gguf");
  save_gguf(changed, pairs,
            {gguf_dense("token_embd.weight", at::zeros({400, 48}), GgufType::kF32)});
  try {
    load_model(find_model_folder(changed), {});
  } catch (const Error& error) {
    const std::string text = error.what();
    return text.substr(text.find("x.gguf"));
  }
  return "";
}

TEST_CASE("GGUF: what isn't supported is refused by its name") {
  using Type = GgufValueType;
  CHECK(model_error("general.architecture", {Type::kString, "mamba"}) ==
        "x.gguf: unsupported architecture: got 'mamba', wanted llama, qwen2, qwen3");
  CHECK(model_error("general.architecture", {Type::kString, "clip"}) ==
        "x.gguf: a file with a vision encoder alone: wanted the text model's (this one goes with "
        "--mmproj)");
  CHECK(model_error("tokenizer.ggml.pre", {Type::kString, "tekken"}) ==
        "x.gguf: tokenizer.ggml.pre: unsupported tokenizer: got 'tekken', wanted smollm, gpt-2, "
        "llama-bpe, qwen2");
  CHECK(model_error("tokenizer.ggml.model", {Type::kString, "bert"}) ==
        "x.gguf: tokenizer.ggml.model: unsupported tokenizer: got 'bert', wanted gpt2");
  CHECK(model_error("tokenizer.ggml.token_type", {Type::kInt32, {1, 2}}) ==
        "x.gguf: tokenizer.ggml.token_type: as many kinds as tokens are wanted: got 2, wanted 400");
  CHECK(model_error("tokenizer.ggml.eos_token_id", {Type::kUint32, 400}) ==
        "x.gguf: tokenizer.ggml.eos_token_id: there is no such token: got 400, wanted one of 400");
  CHECK(model_error("llama.rope.scaling.type", {Type::kString, "yarn"}) ==
        "x.gguf: llama.rope.scaling.type: unsupported rotation: got 'yarn', wanted none or linear");
  CHECK(model_error("llama.block_count", {Type::kString, "x"}) ==
        "x.gguf: llama.block_count: value of another kind: got string \"x\", wanted an integer");
  // Weights that are missing are listed as those of any checkpoint.
  CHECK(model_error("general.name", {Type::kString, "n"})
            .starts_with("x.gguf: weights don't fit the model: 19 parameters not in the files: "));
}

TEST_CASE("GGUF: names of files that can't be meant") {
  const GgufCache cache;
  const ScratchFolder& scratch = cache.scratch;
  CHECK_THROWS_WITH(find_model_folder(scratch.at("no.gguf")),
                    scratch.at("no.gguf") + ": no such file");
  CHECK_THROWS_WITH(find_model_folder(fixture(kTinyModel), "x.gguf"),
                    "--mmproj: a vision encoder's file goes with a GGUF model: got " +
                        fixture(kTinyModel).string() + ", wanted a .gguf file by --model");
  for (const char* name : {"m.gguf", "mmproj-a.gguf", "mmproj-b.gguf"}) {
    const bool is_text = std::string(name) == "m.gguf";
    fs::copy_file(gguf_fixture(is_text ? "smolvlm_tiny" : "mmproj-smolvlm_tiny"), scratch.at(name));
  }
  CHECK_THROWS_WITH(find_model_folder(scratch.at("m.gguf")),
                    scratch.at("m.gguf") +
                        ": several files with a vision encoder lie beside the model: got "
                        "mmproj-a.gguf, mmproj-b.gguf, wanted one of them, by --mmproj (or the "
                        "model alone in a folder, to leave pictures out)");
  const fs::path first = find_model_folder(scratch.at("m.gguf"), scratch.at("mmproj-a.gguf"));
  CHECK(find_model_folder(scratch.path(), scratch.at("mmproj-a.gguf")) == first);
  fs::copy_file(gguf_fixture("llama_tiny"), scratch.at("other.gguf"));
  CHECK_THROWS_WITH(find_model_folder(scratch.path()),
                    scratch.path().string() +
                        ": several GGUF files in the folder: got m.gguf, "
                        "other.gguf, wanted the path of one of them");
  // Without pictures where the model has no token for them.
  CHECK_FALSE(fs::exists(find_model_folder(scratch.at("other.gguf")) / "preprocessor_config.json"));
  // Of several the one that is called as the model.
  fs::copy_file(gguf_fixture("mmproj-smolvlm_tiny"), scratch.at("mmproj-m.gguf"));
  CHECK(find_model_folder(scratch.at("m.gguf")) ==
        find_model_folder(scratch.at("m.gguf"), scratch.at("mmproj-m.gguf")));
  // Another file of the same name is noticed, and what was made of the one before is removed.
  fs::remove(scratch.at("m.gguf"));
  fs::copy_file(gguf_fixture("smolvlm_tiny"), scratch.at("m.gguf"));
  const fs::path second = find_model_folder(scratch.at("m.gguf"), scratch.at("mmproj-a.gguf"));
  CHECK(second != first);
  CHECK_FALSE(fs::exists(first));
  const std::string encoder = scratch.at("mmproj-a.gguf");
  CHECK_THROWS_WITH(find_model_folder(scratch.at("other.gguf"), encoder),
                    scratch.at("other.gguf") +
                        ": the text model has no token for pictures: wanted <image> (is " +
                        encoder + " of another model?)");
}

}  // namespace
}  // namespace vlm
