// Models in few bits as their users meet them: written, and run by every command.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

const std::string kEmoji = "models/easy-vqa-emoji";
const std::string kAsk =
    " --device cpu --threads 1 --image examples/pictures/shape_038.png "
    "--prompt 'what color is the shape?' ";

// A cache of its own for what is made of GGUF files; child processes have it too.
struct FewBitsFolder {
  EnvironmentGuard environment;
  ScratchFolder scratch;
  FewBitsFolder() { ::setenv("XDG_CACHE_HOME", scratch.at("cache").c_str(), 1); }
};

std::string answer_of(const std::string& model, const std::string& options = "") {
  const ProgramResult run = run_vlm("generate --model " + model + kAsk + options);
  INFO(run.err);
  REQUIRE(run.code == 0);
  return run.out;
}

TEST_CASE("an exported model answers as its source, is inspected, planned and merged") {
  const FewBitsFolder folder;
  const std::string output = folder.scratch.at("out"), wanted = answer_of(kEmoji);
  const ProgramResult run = run_vlm("export " + kEmoji + " --type q4_0 --output " + output);
  INFO(run.err);
  REQUIRE(run.code == 0);
  const std::string model = output + "/easy-vqa-emoji-q4_0.gguf";
  const std::string encoder = output + "/mmproj-easy-vqa-emoji-q4_0.gguf";
  CHECK_THAT(run.err, Contains("wrote " + model) && Contains("wrote " + encoder));
  CHECK_THAT(run.err,
             Contains(kEmoji + ": this model is shown a picture as one tile; llama.cpp shows "
                               "any as a tile and the whole"));
  CHECK(answer_of(model) == wanted);
  CHECK(answer_of(model, "--mmproj " + encoder) == wanted);
  CHECK(answer_of(output) == wanted);  // the folder with one model
  CHECK(answer_of(model, "--dtype float32") == wanted);
  CHECK(answer_of(model, "--dtype int8") == wanted);

  const ProgramResult inspected = run_vlm("inspect " + model + " --json");
  REQUIRE(inspected.code == 0);
  const Json report = Json::parse(inspected.out);
  CHECK(report["tensors_stored"] == Json({{"F32", 42}, {"Q4_0", 21}, {"Q8_0", 21}}));

  const std::string merged = folder.scratch.at("merged");
  REQUIRE(run_vlm("merge --model " + model + " --dtype float32 --output " + merged).code == 0);
  CHECK(answer_of(merged) == wanted);

  // A model isn't written over itself.
  const ProgramResult again =
      run_vlm("export " + model + " --type q4_0 --name easy-vqa-emoji --output " + output);
  CHECK(again.code == 1);
  CHECK_THAT(again.err, Contains(model + ": file is the model that is exported (another --output "
                                         "or --name keeps both)"));
}

TEST_CASE("a GGUF model is quantized with the encoder that is named") {
  const FewBitsFolder folder;
  const std::string output = folder.scratch.at("out"), saved = folder.scratch.at("saved");
  REQUIRE(run_vlm("export " + kEmoji + " --type f16 --name m --output " + output).code == 0);
  const std::string encoder = folder.scratch.at("encoder.gguf");
  std::filesystem::rename(output + "/mmproj-m-f16.gguf", encoder);
  const ProgramResult run = run_vlm("quantize " + output + "/m-f16.gguf --mmproj " + encoder +
                                    " --dtype int8 --output " + saved);
  INFO(run.err);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.out, Contains("model.vision_model.encoder.layers.*.mlp.fc1"));
  CHECK(answer_of(saved) == answer_of(kEmoji));
}

TEST_CASE("a GGUF model is a base for adapters") {
  const FewBitsFolder folder;
  const std::string output = folder.scratch.at("out");
  REQUIRE(run_vlm("export " + kEmoji + " --type q8_0 --output " + output).code == 0);
  const std::string model = output + "/easy-vqa-emoji-q8_0.gguf";
  const std::string config = folder.scratch.write(
      "c.yaml", "model_name_or_path: " + model +
                    "\ntrain_files: [examples/pictures/examples.jsonl]\noutput_dir: " +
                    folder.scratch.at("run") +
                    "\nmethod: lora\nmax_steps: 2\nper_device_train_batch_size: 2\n");
  const ProgramResult plan = run_vlm("plan " + config + " --device cpu --threads 1");
  INFO(plan.err);
  CHECK(plan.code == 0);
  const ProgramResult run = run_vlm("finetune " + config + " --device cpu --threads 1");
  INFO(run.err);
  REQUIRE(run.code == 0);
  const Json adapter = load_json(folder.scratch.at("run/adapter_config.json"));
  CHECK(adapter["base_model_name_or_path"] == model);
  CHECK_FALSE(answer_of(model, "--adapter " + folder.scratch.at("run")).empty());
}

TEST_CASE("a quantized checkpoint answers as its source, and what can't be is refused") {
  const FewBitsFolder folder;
  const std::string wanted = answer_of(kEmoji);
  for (const std::string options :
       {"--dtype int8", "--dtype int4",
        "--dtype int4 --calibration examples/pictures/examples.jsonl --samples 8 --size-mb 4.6"}) {
    INFO(options);
    const ScratchFolder output;
    const ProgramResult run = run_vlm("quantize " + kEmoji + " " + options + " --threads 1" +
                                      " --output " + output.at("q"));
    INFO(run.err);
    REQUIRE(run.code == 0);
    CHECK_THAT(run.out, Contains("model.text_model.layers.*.mlp.up_proj") && Contains(" MB"));
    CHECK(answer_of(output.at("q")) == wanted);
    const ProgramResult twice =
        run_vlm("quantize " + kEmoji + " --dtype int8 --output " + output.at("q"));
    CHECK(twice.code == 1);
    CHECK_THAT(twice.err, Contains("there is a model already: got config.json, wanted an empty "
                                   "folder"));
  }
  const auto error_of = [&](const std::string& options) {
    const ProgramResult run =
        run_vlm("quantize " + kEmoji + " " + options + " --output " + folder.scratch.at("q"));
    CHECK(run.code == 1);
    return run.err;
  };
  CHECK_THAT(error_of(""), Contains("--dtype: a dtype of fewer bits is wanted: got auto, wanted "
                                    "int4 or int8"));
  CHECK_THAT(error_of("--dtype int8 --size-mb 5"),
             Contains("--dtype int8: only layers of 4 bits are calibrated"));
  CHECK_THAT(error_of("--dtype int4 --calibration none.jsonl"), Contains("none.jsonl"));
  CHECK_THAT(run_vlm("generate --model " + kEmoji + kAsk + "--mmproj x.gguf").err,
             Contains("--mmproj: a vision encoder's file goes with a GGUF model"));
  CHECK_THAT(run_vlm("export " + kEmoji + " --type q2_k --output x").err, Contains("--type"));
}

}  // namespace
}  // namespace vlm
