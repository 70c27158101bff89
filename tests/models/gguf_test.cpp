// Models in GGUF files: what the Python package wrote computes as the checkpoint that it was made
// of, and what is exported comes back.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "tests/support/environment_guard.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/thrown.h"
#include "tests/support/tiny_model.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/io/gguf/gguf_file.h"
#include "vlm/models/gguf/gguf_export.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/gguf/gguf_tokenizer.h"
#include "vlm/models/weight_files.h"
#include "vlm/nn/weights/stored_int4.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/sentencepiece_file.h"
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
      CHECK(tokenizer->encode(text, true) == original->encode(text, true));
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
        "x.gguf: tokenizer.ggml.model: unsupported tokenizer: got 'bert', wanted gpt2 or "
        "llama");
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

TEST_CASE("GGUF: a model in several parts is that of one file") {
  const GgufCache cache;
  const at::NoGradGuard no_grad;
  const fs::path first = gguf_fixture("parts-00001-of-00003");
  const ModelPtr model = load_model(find_model_folder(first), {});
  const ModelPtr wanted = load_model(fixture("qwen2_tiny"), {});
  for (const auto& [key, weight] : wanted->weights()) {
    INFO(key);
    CHECK(model->module().named_parameters()[key].equal(weight));
  }
  // A change of a later part is noticed, and the folder of the first is enough.
  const ScratchFolder& scratch = cache.scratch;
  fs::create_directory(scratch.at("m"));
  for (const char* part : {"1", "2", "3"}) {
    const std::string name = concat("parts-0000", part, "-of-00003.gguf");
    fs::copy_file(fixture("gguf") / name, scratch.at("m/" + name));
  }
  const fs::path before = find_model_folder(scratch.at("m"));
  CHECK(open_weights(before)->paths().size() == 3);
  const std::string last = scratch.at("m/parts-00003-of-00003.gguf");
  fs::last_write_time(last, fs::last_write_time(last) + std::chrono::seconds(5));
  CHECK(find_model_folder(scratch.at("m")) != before);
  // The encoder is called as the model, without the number.
  scratch.write("x/x-00001-of-00001.gguf", load_text(gguf_fixture("smolvlm_tiny")));
  for (const char* name : {"x/mmproj-x.gguf", "x/mmproj-y.gguf"}) {
    scratch.write(name, load_text(gguf_fixture("mmproj-smolvlm_tiny")));
  }
  CHECK(find_model_folder(scratch.at("x/x-00001-of-00001.gguf")) ==
        find_model_folder(scratch.at("x/x-00001-of-00001.gguf"), scratch.at("x/mmproj-x.gguf")));
}

// What reads `folder`/tokenizer.model as a GGUF file does: special tokens are cut out of texts, and
// the space in front comes behind each.
void name_special_tokens(const fs::path& folder, const std::vector<std::string>& special) {
  const SentencepieceFile file =
      parse_sentencepiece(load_text(folder / "tokenizer.model"), folder.string());
  Json added = Json::object();
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const std::string& text = file.pieces[id].text;
    if (std::ranges::count(special, text) == 0) continue;
    added[concat(id)] = {{"content", text}, {"special", true}};
  }
  save_text(folder / "tokenizer_config.json",
            Json({{"legacy", true}, {"added_tokens_decoder", added}}).dump());
}

std::unique_ptr<Tokenizer> tokenizer_of(const fs::path& file, const ScratchFolder& folder) {
  for (const SideFile& side : make_gguf_tokenizer(GgufFile(file).header())) {
    folder.write(side.name, side.text);
  }
  return load_tokenizer(folder.path());
}

TEST_CASE("GGUF: tokenizers of sentencepiece give the same ids for hard texts") {
  const Json texts = load_json(fixture("tokenizers/texts.json"));
  for (const std::string name : {"spm_llama", "spm_gemma"}) {
    INFO(name);
    const ScratchFolder scratch, read;
    const bool is_llama = name == "spm_llama";
    fs::copy_file(fixture("tokenizers/" + name) / "tokenizer.model", scratch.at("tokenizer.model"));
    name_special_tokens(scratch.path(),
                        is_llama ? std::vector<std::string>{"<unk>", "<s>", "</s>"}
                                 : std::vector<std::string>{"<unk>", "<pad>", "<eos>", "<bos>"});
    const auto original = load_tokenizer(scratch.path());
    save_gguf(scratch.at("t.gguf"), gguf_tokenizer_pairs(scratch.path(), 900), {});
    std::vector<std::unique_ptr<Tokenizer>> tokenizers;
    tokenizers.push_back(tokenizer_of(scratch.at("t.gguf"), read));
    const ScratchFolder other;
    // The Python package's file.
    if (is_llama) tokenizers.push_back(tokenizer_of(gguf_fixture("spm_llama"), other));
    for (const auto& tokenizer : tokenizers) {
      for (const Json& json : texts) {
        const std::string text = hard_text(json);
        INFO(text);
        const auto ids = original->encode(text, true);
        CHECK(tokenizer->encode(text, true) == ids);
        CHECK(tokenizer->decode(ids, false) == original->decode(ids, false));
        CHECK(tokenizer->decode(ids, true) == original->decode(ids, true));
      }
    }
  }
}

TEST_CASE("GGUF: what a tokenizer of sentencepiece lacks is said") {
  const GgufFile file(gguf_fixture("spm_llama"));
  const auto error_of = [&](const std::string& key, const GgufValue& value) {
    GgufHeader header = file.header();
    header.where = "f";
    header.values["tokenizer.ggml." + key] = value;
    return thrown_by([&] { make_gguf_tokenizer(header); });
  };
  const std::size_t count = file.header().list("tokenizer.ggml.tokens").size();
  Json kinds = Json(count, 1);
  kinds[count - 1] = 5;  // one of two unused tokens with the same text
  CHECK(error_of("token_type", {GgufValueType::kInt32, kinds}) ==
        "f: tokenizer.ggml.token_type: number of tokens for what is unknown (2): got 0, wanted 1");
  kinds[0] = 2;
  for (std::size_t id = 1; id < 8; ++id) kinds[id] = 6;
  CHECK(error_of("token_type", {GgufValueType::kInt32, kinds}) ==
        "f: tokenizer.ggml.token_type: number of tokens for bytes (6): got 7, wanted none or 256");
  CHECK(error_of("scores", {GgufValueType::kFloat32, {1.0, 2.0}}) ==
        concat("f: tokenizer.ggml.scores: a score for each token is wanted: got 2, wanted ", count,
               " numbers"));
  Json texts = file.header().list("tokenizer.ggml.tokens");
  texts[8] = texts[7];
  CHECK_THAT(error_of("tokens", {GgufValueType::kString, texts}),
             Contains("f: tokenizer.ggml.tokens[8]: token given twice"));
  CHECK_THROWS_WITH(
      gguf_tokenizer_pairs(fixture("tokenizers/spm_unigram"), 400),
      (fixture("tokenizers/spm_unigram") / "tokenizer.model").string() +
          ": GGUF files hold sentencepiece tokenizers of BPE alone: got another kind (unigram?), "
          "wanted one trained with model_type=bpe");
}

TEST_CASE("GGUF: a chat template asks for llama.cpp's mark, too, and comes back as it was") {
  const fs::path folder = fixture(kTinyModel);
  const ScratchFolder scratch;
  save_gguf(scratch.at("t.gguf"), gguf_tokenizer_pairs(folder, 400), {});
  const GgufHeader header = GgufFile(scratch.at("t.gguf")).header();
  const std::string written = header.text("tokenizer.chat_template");
  const auto render = [&](const std::vector<ContentPart>& content) {
    return ChatTemplate(written, "t").render({{"user", content}}, true);
  };
  CHECK(render({{"text", "<__media__>Which?"}}).starts_with("<|im_start|>User:<__media__>"));
  CHECK(render({{"text", "Which?"}}).starts_with("<|im_start|>User: Which?"));
  CHECK(render({{"image"}, {"text", "Which?"}}).starts_with("<|im_start|>User:<image>"));
  CHECK(make_gguf_tokenizer(header)[2].text == *find_chat_template(folder));
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
