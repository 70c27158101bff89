// The options that say how answers are made, on the command line.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

const std::string kModel =
    " --model models/easy-vqa-emoji --device cpu --threads 1 --max-new-tokens 8 ";
const std::string kAsk =
    "generate --image examples/pictures/shape_049.png"
    " --prompt 'what shape is in the image?'" +
    kModel;

Json ask(const std::string& options) {
  const ProgramResult result = run_vlm(kAsk + "--format json " + options);
  INFO(options << ": " << result.err);
  REQUIRE(result.code == 0);
  return Json::parse(result.out);
}

std::vector<Json> read_rows(const std::filesystem::path& path) {
  std::istringstream in(read_file(path));
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

TEST_CASE("keys and values in fewer bits: the same answers, other digits") {
  const Json wide = ask("--dtype float32"), exact = ask("--dtype float32 --kv-dtype float32");
  CHECK(wide["token_logprobs"] == exact["token_logprobs"]);
  const Json narrow = ask("--dtype float32 --kv-dtype bfloat16");
  const Json bytes = ask("--dtype float32 --kv-dtype int8");
  for (const Json& other : {narrow, bytes}) {
    CHECK(other["text"] == "circle");
    CHECK(other["token_logprobs"] != wide["token_logprobs"]);
  }
  CHECK(ask("--dtype int8")["token_logprobs"] ==
        ask("--dtype int8 --kv-dtype bfloat16")["token_logprobs"]);
  const ProgramResult refused = run_vlm(kAsk + "--kv-dtype fp8");
  CHECK(refused.code == 2);
  CHECK_THAT(refused.err, Contains("--kv-dtype: fp8 not in {auto,float32,bfloat16,int8}"));
}

TEST_CASE("prompt lookup beside beams and several answers is refused") {
  for (const std::string rows : {"--num-beams 2", "--temperature 1 --num-return-sequences 2"}) {
    const ProgramResult refused = run_vlm(kAsk + "--prompt-lookup 3 " + rows);
    CHECK(refused.code == 1);
    CHECK_THAT(refused.err, Contains("--prompt-lookup: has no effect on beams and several answers "
                                     "(it guesses the tokens of one answer)"));
  }
}

TEST_CASE("beams, samples and choices answer on the command line") {
  const Json beams = ask("--num-beams 3 --num-return-sequences 2");
  CHECK(beams["text"] == "circle");
  CHECK(beams["alternatives"].size() == 1);
  CHECK(beams["score"] >= beams["alternatives"][0]["score"]);

  const std::string draws = "--temperature 3 --num-return-sequences 4 --seed ";
  CHECK(ask(draws + "1")["alternatives"] == ask(draws + "1")["alternatives"]);
  CHECK(ask(draws + "1")["alternatives"] != ask(draws + "2")["alternatives"]);
  CHECK(ask("--do-sample --top-k 1")["text"] == "circle");
  CHECK(ask("--temperature 0")["text"] == "circle");
  CHECK(ask("--bad-words circle")["text"] != "circle");
  CHECK(ask("--min-new-tokens 5")["token_ids"].size() >= 5);
  const Json stopped = ask("--stop cir");
  CHECK(stopped["finish_reason"] == "stop");

  const Json choices = ask("--choices circle,triangle");
  CHECK(choices["text"] == "circle");
  CHECK(choices["probability"] > 0.9);
  CHECK(choices["probabilities"]["circle"].get<double>() +
            choices["probabilities"]["triangle"].get<double>() ==
        Approx(1).margin(1e-5));
  CHECK_FALSE(choices.contains("token_ids"));
  const std::string as_text = kAsk + "--format text ";
  CHECK(run_vlm(as_text + "--choices circle,triangle").out == "circle\n");
  CHECK(run_vlm(as_text + "--num-beams 2").out == "circle\n");
}

TEST_CASE("answers below the wanted confidence are withheld") {
  const Json sure = ask("--abstain-below 0.5");
  CHECK(sure["abstained"] == false);
  CHECK(sure["text"] == "circle");
  const Json unsure = ask("--choices circle,triangle --abstain-below 1");
  CHECK(unsure["abstained"] == true);
  CHECK(unsure["text"].is_null());
  CHECK(unsure["withheld_text"] == "circle");
}

TEST_CASE("options of decoding that can't be met are refused") {
  const ProgramResult alone = run_vlm(kAsk + "--num-return-sequences 2");
  CHECK(alone.code == 1);
  CHECK_THAT(alone.err, Contains("several answers need do_sample or num_beams"));
  CHECK(run_vlm(kAsk + "--early-stopping maybe").code == 2);
  CHECK(run_vlm(kAsk + "--do-sample --no-do-sample").code == 2);
  CHECK_THAT(run_vlm(kAsk + "--top-p 0").err, Contains("top_p is out of range: got 0"));
  CHECK_THAT(run_vlm(kAsk + "--choices yes").err, Contains("nothing to choose from"));
}

TEST_CASE("a second run takes encoded pictures from the cache, and answers the same") {
  const ScratchFolder folder;
  const auto run = [&](const std::string& output) {
    return run_vlm("vqa examples/pictures --question 'is there a circle?'" + kModel +
                   "--choices yes,no --feature-cache " + folder.at("features") + " --output " +
                   folder.at(output));
  };
  REQUIRE(run("first.jsonl").code == 0);
  std::size_t entries = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(folder.at("features"))) {
    entries += file.path().extension() == ".safetensors" ? 1 : 0;
  }
  CHECK(entries == 24);
  REQUIRE(run("second.jsonl").code == 0);
  const auto first = read_rows(folder.at("first.jsonl")),
             second = read_rows(folder.at("second.jsonl"));
  REQUIRE(first.size() == 24);
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(first[i]["text"] == second[i]["text"]);
}

TEST_CASE("a changed way of decoding doesn't go on with another's rows") {
  const ScratchFolder folder;
  const std::string command =
      "vqa examples/pictures/shape_049.png --question 'is there a circle?'" + kModel + "--output " +
      folder.at("rows.jsonl");
  REQUIRE(run_vlm(command).code == 0);
  const ProgramResult changed = run_vlm(command + " --num-beams 2");
  CHECK(changed.code == 1);
  CHECK_THAT(changed.err, Contains("--num-beams"));
  CHECK(run_vlm(command + " --num-beams 2 --restart").code == 0);
}

}  // namespace
}  // namespace vlm
