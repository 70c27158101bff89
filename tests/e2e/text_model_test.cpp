// Text models in the program: generate, evaluate, finetune with an end in between, merge, inspect,
// plan; and what is refused.
#include <nlohmann/json.hpp>

#include "tests/support/child_process.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/small_training.h"

namespace vlm {
namespace {

const std::string kLlama = " --model tests/fixtures/llama_tiny --device cpu --threads 1 ";

TEST_CASE("text models: generate answers, with a fixed day, and refuses pictures by name") {
  const std::string ask =
      "generate" + kLlama + "--prompt 'How many?' --max-new-tokens 4 --no-do-sample --format json";
  const ProgramResult first = run_vlm(ask + " --date 2024-07-26");
  REQUIRE(first.code == 0);
  const ProgramResult second = run_vlm(ask + " --template-arg 'date_string=26 Jul 2024'");
  REQUIRE(second.code == 0);
  const Json a = Json::parse(first.out), b = Json::parse(second.out);
  CHECK(a["prompt_token_ids"] == b["prompt_token_ids"]);
  CHECK(a["token_ids"] == b["token_ids"]);
  CHECK(Json::parse(run_vlm(ask + " --date 2020-01-02").out)["prompt_token_ids"] !=
        a["prompt_token_ids"]);
  const ProgramResult picture = run_vlm(ask + " --image tests/fixtures/pictures/square.png");
  CHECK(picture.code == 1);
  CHECK_THAT(picture.err, Contains("tests/fixtures/llama_tiny: the model takes no pictures and no "
                                   "videos (it is a model of text alone)"));
  CHECK_THAT(run_vlm(ask + " --date tomorrow").err,
             Contains("date: not a day: got 'tomorrow', wanted YYYY-MM-DD"));
  CHECK_THAT(run_vlm(ask + " --template-arg colour=red").err,
             Contains("argument colour: the chat template doesn't use it"));
  CHECK_THAT(run_vlm(ask + " --template-arg colour").err, Contains("wanted NAME=VALUE"));
}

TEST_CASE("text models: caption and video are refused before anything is written") {
  const ScratchFolder folder;
  for (const std::string command : {"caption", "video --question x"}) {
    const ProgramResult run = run_vlm(command + kLlama + "--output " + folder.at("rows.jsonl") +
                                      (command == "caption" ? " tests/fixtures/pictures/square.png"
                                                            : " examples/clips/left.mp4"));
    CHECK(run.code == 1);
    CHECK_THAT(run.err, Contains("the model takes no pictures and no videos"));
    CHECK(folder.names().empty());
  }
}

TEST_CASE("text models: evaluate, inspect and plan") {
  const ScratchFolder folder;
  const std::string data =
      folder.write("rows.jsonl", R"({"question": "How many?", "answer": "3"})"
                                 "\n"
                                 R"({"question": "What colour?", "answer": "red"})"
                                 "\n");
  const ProgramResult evaluated = run_vlm("evaluate " + data + kLlama + "--output " +
                                          folder.at("answers.jsonl") + " --max-new-tokens 3");
  CHECK(evaluated.code == 0);
  CHECK(Json::parse(evaluated.out)["total"] == 2);
  const ProgramResult inspected = run_vlm("inspect tests/fixtures/phi3_tiny --format json");
  REQUIRE(inspected.code == 0);
  const Json report = Json::parse(inspected.out);
  CHECK(report["model_type"] == "phi3");
  CHECK(report["parameters"]["text_model"] == report["parameters"]["total"]);
  CHECK(report["text_config"]["hidden_size"] == 32);
  const Json config = {{"model_name_or_path", fixture("qwen3_tiny").string()},
                       {"output_dir", folder.at("run")},
                       {"train_files", {data}},
                       {"max_steps", 2}};
  const std::string path = folder.write("config.json", config.dump());
  const ProgramResult plan = run_vlm("plan " + path + " --device cpu");
  INFO(plan.err);
  CHECK(plan.code == 0);
}

TEST_CASE("text models: a training that was killed ends as one that wasn't; its merge answers so") {
  const ScratchFolder folder;
  std::string rows;
  for (int i = 0; i < 6; ++i) {
    rows +=
        Json{{"prompt", "Say " + std::to_string(i)}, {"completion", "it is " + std::to_string(i)}}
            .dump() +
        "\n";
  }
  folder.write("data.jsonl", rows);
  for (const std::string model : {"phi3_tiny", "qwen2_tiny"}) {
    const auto arguments = [&](const std::string& output) {
      return training_arguments(folder.path(), output,
                                {"model_name_or_path=" + fixture(model).string(), "max_steps=60",
                                 "save_steps=5", "target_modules=all-linear", "packing=true"});
    };
    ChildProcess whole(arguments(model), folder.at("whole.log"));
    REQUIRE(whole.wait() == 0);
    ChildProcess part(arguments(model + "_parts"), folder.at("part.log"));
    while (!std::filesystem::exists(folder.at(model + "_parts/checkpoint-5")) &&
           part.is_running_after(std::chrono::milliseconds(5))) {
    }
    part.kill(SIGKILL);
    part.wait();
    ChildProcess rest(arguments(model + "_parts"), folder.at("rest.log"));
    REQUIRE(rest.wait() == 0);
    const auto adapter = [&](const std::string& output) {
      return read_file(folder.at(output + "/adapter_model.safetensors"));
    };
    CHECK_FALSE(adapter(model).empty());
    CHECK(adapter(model) == adapter(model + "_parts"));

    const std::string merged = folder.at(model + "_merged");
    CHECK(run_vlm("merge --model " + fixture(model).string() + " --adapter " + folder.at(model) +
                  " --output " + merged)
              .code == 0);
    const auto answer = [&](const std::string& choice) {
      const ProgramResult run = run_vlm("generate " + choice +
                                        " --prompt 'Say 3' --max-new-tokens 6 --format json "
                                        "--device cpu --dtype float32");
      INFO(run.err);
      REQUIRE(run.code == 0);
      return Json::parse(run.out)["token_ids"];
    };
    CHECK(answer("--model " + merged) ==
          answer("--model " + fixture(model).string() + " --adapter " + folder.at(model)));
  }
}

}  // namespace
}  // namespace vlm
