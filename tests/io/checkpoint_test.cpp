// Weights in one file or in shards: what is written loads again, and what doesn't fit is named.
#include "vlm/io/checkpoint.h"

#include <ATen/ATen.h>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

NamedTensors three_tensors() {
  return {{"a", at::arange(6).to(at::kFloat).view({2, 3})},
          {"b", at::full({4}, 0.5)},
          {"c", at::full({2, 2}, -1.0)}};
}

// Parameters of the same names and shapes, not filled.
NamedTensors blank_like(const NamedTensors& tensors) {
  NamedTensors blank;
  for (const auto& [name, tensor] : tensors) {
    blank.emplace_back(name, at::full(tensor.sizes(), 99.0F));
  }
  return blank;
}

std::string load_error(const NamedTensors& parameters, const fs::path& folder,
                       const LoadRules& rules = {}) {
  try {
    load_weights(parameters, Checkpoint(folder), rules);
  } catch (const Error& error) {
    const std::string text = error.what();
    REQUIRE(text.starts_with(folder.string()));
    return text.substr(folder.string().size());
  }
  return "";
}

// A folder whose index holds `weight_map`, with the shards s1 (a, b) and s2 (c).
void write_shards(const ScratchFolder& scratch, const std::string& weight_map) {
  const auto tensors = three_tensors();
  save_safetensors(scratch.at("s1.safetensors"), {tensors[0], tensors[1]});
  save_safetensors(scratch.at("s2.safetensors"), {tensors[2]});
  scratch.write("model.safetensors.index.json", concat(R"({"weight_map":)", weight_map, "}"));
}

TEST_CASE("one file: parameters keep their identity and take the mapped values") {
  const ScratchFolder scratch;
  const auto tensors = three_tensors();
  save_weights(scratch.path(), tensors);
  CHECK(scratch.names() == std::vector<std::string>{"model.safetensors"});
  const Checkpoint checkpoint(scratch.path());
  CHECK(checkpoint.keys() == std::vector<std::string>{"a", "b", "c"});
  CHECK(checkpoint.entry("a").shape == std::vector<std::int64_t>{2, 3});
  CHECK(checkpoint.tensor("a").equal(tensors[0].second));
  CHECK_THROWS_WITH(checkpoint.tensor("x"), scratch.path().string() + ": no tensor 'x'");

  const auto parameters = blank_like(tensors);
  const at::Tensor held = parameters[0].second;  // as a module holds it
  load_weights(parameters, checkpoint, {});
  CHECK(held.equal(tensors[0].second));
  CHECK(parameters[1].second.equal(tensors[1].second));
  CHECK(parameters[2].second.equal(tensors[2].second));
}

TEST_CASE("shards hold at most the bytes asked for, and load as one") {
  const ScratchFolder scratch;
  const auto tensors = three_tensors();  // 24, 16 and 16 bytes
  save_weights(scratch.path(), tensors);
  save_weights(scratch.path(), tensors, 32);
  CHECK(scratch.names() ==  // the single file of before would be taken first
        std::vector<std::string>{"model-00001-of-00002.safetensors",
                                 "model-00002-of-00002.safetensors",
                                 "model.safetensors.index.json"});
  CHECK(load_text(scratch.at("model.safetensors.index.json")) ==
        "{\n  \"weight_map\": {\n"
        "    \"a\": \"model-00001-of-00002.safetensors\",\n"
        "    \"b\": \"model-00002-of-00002.safetensors\",\n"
        "    \"c\": \"model-00002-of-00002.safetensors\"\n  },\n"
        "  \"metadata\": {\n    \"total_size\": 56\n  }\n}\n");
  const auto parameters = blank_like(tensors);
  load_weights(parameters, Checkpoint(scratch.path()), {});
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    CHECK(parameters[i].second.equal(tensors[i].second));
  }
}

TEST_CASE("a folder holds the weights saved last, and no shard of others") {
  const ScratchFolder scratch;
  save_weights(scratch.path(), three_tensors(), 1);
  save_weights(scratch.path(), three_tensors(), 32);
  CHECK(scratch.names().size() == 3);
  scratch.write("model-notes.txt", "");
  save_weights(scratch.path(), three_tensors());
  CHECK(scratch.names() == std::vector<std::string>{"model-notes.txt", "model.safetensors"});
  CHECK(Checkpoint(scratch.path()).paths() ==
        std::vector<std::filesystem::path>{scratch.path() / "model.safetensors"});
}

TEST_CASE("files that would be taken for weights, in every format") {
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "model-00001-of-00003.safetensors",
        "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json",
        "tf_model.h5", "flax_model.msgpack", "a/b/model.safetensors"}) {
    INFO(name);
    CHECK(is_weights_file(name));
  }
  for (const char* name : {"adapter_model.safetensors", "optimizer.safetensors", "config.json",
                           "model-notes.txt", "training_args.bin"}) {
    INFO(name);
    CHECK_FALSE(is_weights_file(name));
  }
}

TEST_CASE("a tensor larger than a shard has one to itself") {
  const ScratchFolder scratch;
  save_weights(scratch.path(), three_tensors(), 1);
  CHECK(scratch.names().size() == 4);
  CHECK(Checkpoint(scratch.path()).keys().size() == 3);
}

TEST_CASE("a folder without weights is refused, with a hint at pickles") {
  const ScratchFolder scratch;
  CHECK(load_error({}, scratch.path()) ==
        ": no weights in the folder: wanted model.safetensors or model.safetensors.index.json");
  scratch.write("pytorch_model.bin", "");
  CHECK(load_error({}, scratch.path()) ==
        ": no weights in the folder: wanted model.safetensors or model.safetensors.index.json "
        "(pytorch_model.bin is a pickle and is never read; convert it)");
}

TEST_CASE("an index that doesn't fit its shards is refused") {
  const ScratchFolder scratch;
  const std::string index = "/model.safetensors.index.json: ";
  const auto error_of = [&](const std::string& weight_map) {
    write_shards(scratch, weight_map);
    return load_error({}, scratch.path());
  };
  const std::string rest = R"("b":"s1.safetensors","c":"s2.safetensors")";
  CHECK_THAT(error_of(R"({"a":"s1.safetensors",)" + rest + "}"),
             Contains("3 keys the model has no use for"));  // the index itself is good
  CHECK(error_of("[]") == index + "no weight_map: wanted an object");
  scratch.write("model.safetensors.index.json", "{}");
  CHECK(load_error({}, scratch.path()) == index + "no weight_map: wanted an object");
  scratch.write("model.safetensors.index.json", "[1]");
  CHECK(load_error({}, scratch.path()) == index + "no weight_map: wanted an object");
  CHECK(error_of(R"({"a":"s3.safetensors"})") ==
        index + "a: missing shard: got no file s3.safetensors");
  const std::string foreign = index + "a: not a shard of this folder: got ";
  CHECK(error_of(R"({"a":"../s1.safetensors"})") == foreign + "string \"../s1.safetensors\"");
  CHECK(error_of(R"({"a":"/s1.safetensors"})") == foreign + "string \"/s1.safetensors\"");
  CHECK(error_of(R"({"a":"s1.bin"})") == foreign + "string \"s1.bin\"");
  CHECK(error_of(R"({"a":1})") == foreign + "number 1");
  CHECK(error_of(R"({"a":"s2.safetensors",)" + rest + "}") ==
        index + "a: shard lacks the tensor: got s2.safetensors");
  CHECK(error_of("{" + rest + "}") == "/s1.safetensors: tensor is not in the index: got a");
}

TEST_CASE("one error names missing, unused and misshapen keys") {
  const ScratchFolder scratch;
  save_weights(scratch.path(), three_tensors());
  const NamedTensors parameters = {
      {"a", at::zeros({3, 2})}, {"b", at::zeros({4})}, {"d", at::zeros({5, 1})}};
  CHECK(load_error(parameters, scratch.path()) ==
        ": weights don't fit the model: 1 parameters not in the files: d [5, 1]; "
        "1 keys the model has no use for: c [2, 2]; 1 wrong shapes: a [2, 3] instead of [3, 2]");
  CHECK(parameters[1].second.equal(at::zeros({4})));  // nothing was filled
}

TEST_CASE("of many misfits the first ten are named, and the rest counted") {
  const ScratchFolder scratch;
  NamedTensors tensors, wanted;
  for (char name = 'a'; name < 'a' + 12; ++name) {
    tensors.emplace_back(std::string(1, name), at::zeros({1}));
    wanted.emplace_back(std::string("p") + name, at::zeros({2}));
  }
  save_weights(scratch.path(), tensors);
  CHECK(load_error(wanted, scratch.path()) ==
        ": weights don't fit the model: 12 parameters not in the files: pa [2], pb [2], pc [2], "
        "pd [2], pe [2], pf [2], pg [2], ph [2], pi [2], pj [2] and 2 more; 12 keys the model has "
        "no use for: a [1], b [1], c [1], d [1], e [1], f [1], g [1], h [1], i [1], j [1] and 2 "
        "more");
}

TEST_CASE("renamed keys, ignorable leftovers, and two keys for one parameter") {
  const ScratchFolder scratch;
  save_weights(scratch.path(), {{"old.a", at::ones({2})}, {"buffer", at::ones({1})}});
  LoadRules rules;
  rules.rename = [](const std::string& key) { return key == "old.a" ? "a" : key; };
  const NamedTensors parameters = {{"a", at::zeros({2})}};
  CHECK(load_error(parameters, scratch.path(), rules) ==
        ": weights don't fit the model: 1 keys the model has no use for: buffer [1]");
  rules.is_ignorable = [](const std::string& name) { return name == "buffer"; };
  CHECK(load_error(parameters, scratch.path(), rules).empty());
  CHECK(parameters[0].second.equal(at::ones({2})));
  save_weights(scratch.path(), {{"a", at::ones({2})}, {"old.a", at::ones({2})}});
  CHECK(load_error(parameters, scratch.path(), rules) ==
        ": two keys for one parameter: got a and old.a");
}

TEST_CASE("a tied parameter takes its source's weights unless the files hold its own") {
  const ScratchFolder scratch;
  LoadRules rules;
  rules.tied = {{"head", "embed"}};
  const NamedTensors parameters = {{"embed", at::zeros({3})}, {"head", at::zeros({3})}};
  save_weights(scratch.path(), {{"embed", at::ones({3})}});
  load_weights(parameters, Checkpoint(scratch.path()), rules);
  CHECK(parameters[1].second.equal(at::ones({3})));
  CHECK(parameters[1].second.data_ptr() == parameters[0].second.data_ptr());

  save_weights(scratch.path(), {{"embed", at::ones({3})}, {"head", at::full({3}, 2.0)}});
  load_weights(parameters, Checkpoint(scratch.path()), rules);
  CHECK(parameters[0].second.equal(at::ones({3})));
  CHECK(parameters[1].second.equal(at::full({3}, 2.0)));

  save_weights(scratch.path(), {{"head", at::full({3}, 2.0)}});
  CHECK(load_error(parameters, scratch.path(), rules) ==
        ": weights don't fit the model: 1 parameters not in the files: embed [3]");
}

TEST_CASE("F16 and BF16 widen exactly, F32 narrows as asked, integers are no weights") {
  const ScratchFolder scratch;
  const at::Tensor values = at::tensor({1.0F, -0.333F, 65504.0F, 1e-3F});
  for (const at::ScalarType stored : {at::kHalf, at::kBFloat16, at::kFloat}) {
    save_weights(scratch.path(), {{"a", values.to(stored)}});
    for (const at::ScalarType wanted : {at::kFloat, at::kBFloat16}) {
      const NamedTensors parameters = {{"a", at::zeros({4})}};
      LoadRules rules;
      rules.dtype = wanted;
      load_weights(parameters, Checkpoint(scratch.path()), rules);
      CHECK(parameters[0].second.scalar_type() == wanted);
      CHECK(parameters[0].second.equal(values.to(stored).to(wanted)));
    }
  }
  save_weights(scratch.path(), {{"a", values.to(at::kInt)}});
  CHECK(load_error({{"a", at::zeros({4})}}, scratch.path()) ==
        ": a: weights have an unsupported dtype: got I32, wanted F32, F16 or BF16");
}

}  // namespace
}  // namespace vlm
