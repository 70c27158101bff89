// The program as its users meet it: output, messages, exit codes, interruptions.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

const std::string kModel = " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 ";
const std::string kPictures = "tests/fixtures/pictures/";

TEST_CASE("every command explains itself and refuses what it doesn't know") {
  for (const std::string command :
       {"generate", "caption", "vqa", "evaluate", "gather", "inspect", "pull", "finetune",
        "inspect-data", "merge", "export", "quantize", "serve", "mcp"}) {
    INFO(command);
    const ProgramResult help = run_vlm(command + " --help");
    CHECK(help.code == 0);
    CHECK_THAT(help.out, Contains("--log-level"));
    const ProgramResult wrong = run_vlm(command + " --no-such-option");
    CHECK(wrong.code == 2);
    CHECK(wrong.out.empty());
    CHECK_FALSE(wrong.err.empty());
  }
  CHECK(run_vlm("").code == 2);
  CHECK(run_vlm("--version").code == 0);
}

TEST_CASE("waiting threads spin briefly, unless the user says how they wait") {
  // libgomp shows what it read when it is loaded.
  const auto display = [](const std::string& environment) {
    return run_shell("exec env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=VERBOSE " +
                         environment + " '" + VLM_BINARY + "' --version",
                     VLM_SOURCE_DIR)
        .err;
  };
  CHECK_THAT(display(""), Contains("GOMP_SPINCOUNT = '5000'"));
  CHECK_THAT(display("GOMP_SPINCOUNT=7"), Contains("GOMP_SPINCOUNT = '7'"));
  CHECK_THAT(display("OMP_WAIT_POLICY=passive"), Contains("GOMP_SPINCOUNT = '0'"));
}

TEST_CASE("a picture whose plugin isn't there is an error that names both") {
  const ScratchFolder folder;
  const ProgramResult run = run_shell(
      "VLM_PLUGIN_DIR='" + folder.path().string() + "' exec '" + VLM_BINARY + "' generate" +
          kModel + "--image tests/fixtures/pictures/other/RGB.jp2 --prompt x",
      VLM_SOURCE_DIR);
  CHECK(run.code == 1);
  CHECK_THAT(run.err, Contains("other/RGB.jp2: JPEG 2000, Radiance and EXR pictures") &&
                          Contains("this build is without vlm_opencv.so"));
}

TEST_CASE("generate prints one line of JSON, or the same text") {
  const std::string ask =
      "generate" + kModel + "--image " + kPictures + "wide.png --image " + kPictures +
      "square.png --system 'Be brief.' --prompt 'What is this?' --max-new-tokens 6";
  const ProgramResult json = run_vlm(ask + " --format json");
  REQUIRE(json.code == 0);
  const Json row = Json::parse(json.out);
  CHECK(row["token_ids"].size() == 6);
  CHECK(row["token_logprobs"].size() == 6);
  CHECK(row["prompt_token_ids"].size() > 20);
  CHECK(row["finish_reason"] == "length");
  CHECK(row["peak_rss_mb"].get<double>() > 10);
  for (const char* key : {"load_s", "vision_s", "prefill_s", "decode_s", "decode_tokens_per_s"}) {
    CHECK(row["timing"][key].get<double>() >= 0);
  }
  const ProgramResult text = run_vlm(ask);
  CHECK(text.out == row["text"].get<std::string>() + "\n");
}

TEST_CASE("errors go to stderr with exit code 1") {
  const ProgramResult picture = run_vlm("generate" + kModel + "--image /nowhere.png --prompt x");
  CHECK(picture.code == 1);
  CHECK(picture.out.empty());
  CHECK_THAT(picture.err, Contains("error: /nowhere.png"));
  const ProgramResult model = run_shell("HF_HUB_OFFLINE=1 '" + std::string(VLM_BINARY) +
                                            "' generate --model no/such --prompt x --device cpu",
                                        VLM_SOURCE_DIR);
  CHECK(model.code == 1);
  CHECK_THAT(model.err, Contains("error: no/such: no such model: got neither a folder nor"));
  const ProgramResult device =
      run_vlm("generate --model tests/fixtures/smolvlm_tiny --prompt x --device tpu");
  CHECK(device.code == 1);
  CHECK_THAT(device.err, Contains("error: unknown device: got 'tpu'"));
}

// Four questions that can only be answered by heart.
void write_training(const std::filesystem::path& folder) {
  std::ofstream data(folder / "data.jsonl");
  const auto line = [&](const char* picture, const char* question, const char* answer) {
    data
        << R"({"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ")"
        << question << R"("}]}, {"role": "assistant", "content": [{"type": "text", "text": ")"
        << answer << R"("}]}], "images": [")"
        << fixture(std::string("pictures/") + picture).string() << "\"]}\n";
  };
  line("square.png", "What?", "a cat");
  line("wide.png", "What?", "two dogs");
  line("square.png", "Where?", "at home");
  line("wide.png", "Where?", "in Rome");
  std::ofstream(folder / "config.json")
      << R"({
    "model_name_or_path": ")"
      << fixture("smolvlm_tiny").string()
      << R"(", "output_dir": "adapter", "train_files": ["data.jsonl"],
    "r": 16, "lora_alpha": 32, "learning_rate": 0.01, "lr_scheduler_type": "constant", "max_steps": 60,
    "per_device_train_batch_size": 4, "logging_steps": 5, "save_steps": 20, "max_grad_norm": 1.0})";
}

TEST_CASE("LoRA learns four samples by heart; generate, evaluate and merge repeat them") {
  const ScratchFolder folder;
  write_training(folder.path());
  const ProgramResult trained =
      run_vlm("finetune config.json --device cpu --threads 1", folder.path());
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  const std::string model = " --model " + fixture("smolvlm_tiny").string() + " --device cpu ";
  const ProgramResult answer =
      run_vlm("generate" + model + "--adapter adapter --image " +
                  fixture("pictures/wide.png").string() + " --prompt 'Where?'",
              folder.path());
  CHECK(answer.out == "in Rome\n");
  const ProgramResult scored = run_vlm(
      "evaluate data.jsonl" + model + "--adapter adapter --output rows.jsonl", folder.path());
  CHECK(scored.out == "{\"accuracy\":1.0,\"correct\":4,\"total\":4,\"errors\":0}\n");
  const std::string base = " --model " + fixture("smolvlm_tiny").string() + " ";
  REQUIRE(run_vlm("merge" + base + "--adapter adapter --output merged", folder.path()).code == 0);
  const ProgramResult merged =
      run_vlm("generate --model merged --device cpu --image " +
                  fixture("pictures/wide.png").string() + " --prompt 'Where?'",
              folder.path());
  CHECK(merged.out == "in Rome\n");

  // In 8 and 4 bits the adapter is merged first.
  for (const std::string dtype : {"--dtype int8", "--dtype int4"}) {
    const ProgramResult rounded =
        run_vlm("generate" + model + "--adapter adapter " + dtype + " --image " +
                    fixture("pictures/wide.png").string() + " --prompt 'Where?'",
                folder.path());
    CHECK(rounded.out == "in Rome\n");
    const ProgramResult counted = run_vlm("evaluate data.jsonl" + model + "--adapter adapter " +
                                              dtype + " --output few.jsonl --restart",
                                          folder.path());
    CHECK(counted.out == "{\"accuracy\":1.0,\"correct\":4,\"total\":4,\"errors\":0}\n");
    for (const std::string& command :
         {"merge" + base + "--adapter adapter --output no " + dtype,
          "finetune config.json --device cpu --set output_dir=no " + dtype,
          "plan config.json --device cpu " + dtype}) {
      INFO(command);
      const ProgramResult refused = run_vlm(command, folder.path());
      CHECK(refused.code == 1);
      CHECK_THAT(refused.err, Contains(dtype + ": "));
      CHECK_FALSE(std::filesystem::exists(folder.path() / "no/model.safetensors"));
    }
  }

  // Without an adapter only the dtype changes.
  const ProgramResult nothing = run_vlm("merge --model merged --output half", folder.path());
  CHECK(nothing.code != 0);
  CHECK_THAT(nothing.err, Contains("nothing to change"));
  REQUIRE(run_vlm("merge --model merged --dtype bfloat16 --output half", folder.path()).code == 0);
  const auto size_of = [&](const char* name) {
    return std::filesystem::file_size(folder.path() / name / "model.safetensors");
  };
  CHECK(size_of("half") < size_of("merged") * 0.55);
  CHECK(std::filesystem::exists(folder.path() / "adapter/train_config.json"));
}

TEST_CASE("Ctrl-C leaves a checkpoint, and the same command ends as if nothing had been") {
  const ScratchFolder folder;
  write_training(folder.path());
  const std::string options =
      " --device cpu --threads 1 --set max_steps=4000 --set save_steps=0 --set output_dir=";
  const ProgramResult cut =
      // In the foreground timeout sends one signal, not two.
      run_shell("timeout --foreground -s INT 1.5 '" + std::string(VLM_BINARY) +
                    "' finetune config.json" + options + "cut || echo code $?",
                folder.path());
  // timeout reports 124 when the time was up; the program itself wrote what it needs to go on.
  CHECK_THAT(cut.out, Contains("code 124"));
  CHECK_THAT(cut.err, Contains("the same command goes on from here"));
  const ProgramResult wrong = run_vlm("finetune config.json --set learning_rat=1", folder.path());
  CHECK(wrong.code == 1);
  CHECK_THAT(wrong.err,
             Contains("command line: unknown key 'learning_rat' (did you mean 'learning_rate'?)"));
  std::int64_t checkpoints = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path() / "cut")) {
    checkpoints += entry.path().filename().string().starts_with("checkpoint-") ? 1 : 0;
  }
  CHECK(checkpoints == 1);
}

}  // namespace
}  // namespace vlm
