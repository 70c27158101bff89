// Commands that run a model, and the library, on the GPU: answers of the CPU, and what a token
// costs.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "infer/vlm.h"
#include "tests/gpu/program.h"
#include "tests/support/simulated_cuda/device.h"
#include "tests/support/small_training.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

using Words = std::vector<std::string>;
using simulated_cuda::DeviceCounts;

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string picture(const std::string& name) {
  return fixture("pictures/" + name + ".png").string();
}

Words on(const std::string& device, const std::string& model = kTinyModel) {
  return {"--model",   fixture(model).string(),
          "--device",  device,
          "--dtype",   "float32",
          "--threads", "1",
          "-q"};
}

const std::set<std::string> kOwn = {"timing", "peak_rss_mb", "load_s"};

// Equal but for rounding of numbers; without what differs from run to run.
void check_alike(const Json& found, const Json& wanted, const std::string& where = "") {
  INFO(where << ": " << found.dump() << " and " << wanted.dump());
  if (wanted.is_number_float()) {
    CHECK(found.get<double>() == Approx(wanted.get<double>()).margin(2e-4).epsilon(2e-4));
  } else if (wanted.is_structured()) {
    REQUIRE(found.type() == wanted.type());
    REQUIRE(found.size() == wanted.size());
    for (const auto& [key, value] : wanted.items()) {
      if (kOwn.count(key) > 0) continue;
      const Json::json_pointer at = Json::json_pointer() / key;
      REQUIRE(found.contains(at));
      check_alike(found[at], value, where + "/" + key);
    }
  } else {
    CHECK(found == wanted);
  }
}

Json generate(const std::string& device, const std::string& model, const Words& options) {
  return Json::parse(output_of(Words{"generate"} + on(device, model) +
                               Words{"--format", "json", "--prompt", "What is in the image?"} +
                               options));
}

TEST_CASE("generate answers on the GPU as on the CPU") {
  const Words one = {"--image", picture("square"), "--max-new-tokens", "8"};
  const Words two = {"--image",       picture("wide"),    "--image",
                     picture("tall"), "--max-new-tokens", "5"};
  const Words clip = {"--video",          VLM_SOURCE_DIR "/examples/clips/left.mp4",
                      "--max-frames",     "3",
                      "--max-new-tokens", "4"};
  const std::vector<Words> options = {
      one,
      two,
      clip,
      {"--max-new-tokens", "6"},
      one + Words{"--num-beams", "3", "--num-return-sequences", "2"},
      two + Words{"--num-beams", "2", "--length-penalty", "0.5"},
      one + Words{"--do-sample", "--temperature", "2", "--seed", "7"},
      one + Words{"--temperature", "3", "--top-p", "0.9", "--num-return-sequences", "3"},
      one + Words{"--repetition-penalty", "1.5", "--no-repeat-ngram-size", "2"},
      one + Words{"--abstain-below", "0.5"},
      {"--image", picture("square"), "--choices", "a cat,two dogs,no"}};
  for (const std::string model : {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny"}) {
    for (const Words& set : options) {
      INFO(model << ": " << set.back());
      if (model == "idefics3_tiny" && set[0] == "--video") continue;
      check_alike(generate("cuda", model, set), generate("cpu", model, set));
    }
  }
}

std::vector<Json> rows_of(const Words& command, const std::string& device, const Words& options) {
  const ScratchFolder folder;
  const std::string output = folder.at("rows.jsonl");
  output_of(command + on(device) + options + Words{"--output", output});
  std::istringstream lines(read_file(output));
  std::vector<Json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
  return rows;
}

void check_rows(const Words& command, const Words& options, std::size_t count) {
  const std::vector<Json> wanted = rows_of(command, "cpu", options),
                          found = rows_of(command, "cuda", options);
  REQUIRE(wanted.size() == count);
  REQUIRE(found.size() == count);
  for (std::size_t i = 0; i < count; ++i) {
    CHECK_FALSE(wanted[i].contains("error"));
    check_alike(found[i], wanted[i], "row " + std::to_string(i));
  }
}

TEST_CASE("runs over pictures and clips give the CPU's rows, groups entering and leaving") {
  const Words pictures = {picture("square"), picture("wide"), picture("tall")};
  const Words questions = {"--question",       "What?",
                           "--question",       "How many shapes are there?",
                           "--question",       "Is there a circle?",
                           "--max-new-tokens", "7"};
  check_rows(Words{"caption"} + pictures, {"--max-new-tokens", "6"}, 3);
  check_rows(Words{"vqa"} + pictures, questions + Words{"--batch-size", "2"}, 9);
  check_rows(Words{"vqa"} + pictures, questions + Words{"--num-beams", "2"}, 9);
  check_rows(Words{"vqa"} + pictures,
             {"--question", "Is there a cat?", "--choices", "yes,no,not at all"}, 3);
  check_rows(Words{"vqa"} + pictures,
             questions + Words{"--do-sample", "--temperature", "2", "--seed", "3"}, 9);
  check_rows(
      {"video", VLM_SOURCE_DIR "/examples/clips/left.mp4", VLM_SOURCE_DIR "/examples/clips/up.mp4"},
      {"--question", "Which way?", "--max-frames", "3", "--max-new-tokens", "4"}, 2);
}

TEST_CASE("evaluate gives the CPU's scores") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  check_rows({"evaluate", folder.at("data.jsonl")}, {"--metric", "anls", "--max-new-tokens", "5"},
             4);
}

TEST_CASE("an adapter is merged for the GPU as for the CPU") {
  const Words options = {"--image", picture("square"), "--max-new-tokens", "8", "--adapter"};
  for (const auto& adapter :
       std::filesystem::directory_iterator(fixture(kTinyModel + "/adapters"))) {
    if (!adapter.is_directory()) continue;
    INFO(adapter.path());
    const Words with = options + Words{adapter.path().string()};
    check_alike(generate("cuda", kTinyModel, with), generate("cpu", kTinyModel, with));
  }
}

TEST_CASE("the library has models on the CPU and on the GPU in one process") {
  const std::string folder = fixture(kTinyModel).string();
  const Model host = Model::load(folder, {.device = "cpu", .dtype = "float32"});
  const Model gpu = Model::load(folder, {.device = "cuda", .dtype = "float32"});
  const Picture square(picture("square"));
  const AskOptions options{.max_new_tokens = 8};
  const Answer wanted = host.ask(square, "What?", options),
               found = gpu.ask(square, "What?", options);
  CHECK(found.text == wanted.text);
  CHECK(found.token_ids == wanted.token_ids);
  CHECK(found.mean_logprob == Approx(wanted.mean_logprob).epsilon(1e-3));
  CHECK(host.ask(square, "What?", options).text == wanted.text);
  const Model recorded =
      Model::load(folder, {.device = "cuda", .dtype = "float32", .cuda_graph = true});
  const auto cost = counts_of(
      [&] { CHECK(recorded.ask(square, "What?", options).token_ids == wanted.token_ids); });
  CHECK(cost.by_name.at("graph launch") == 5);  // of seven steps, the first two are run
}

TEST_CASE("in bfloat16 the GPU answers, too") {
  const Words narrow = {"generate",
                        "--model",
                        fixture(kTinyModel).string(),
                        "--device",
                        "cuda",
                        "--dtype",
                        "bfloat16",
                        "--threads",
                        "1",
                        "-q",
                        "--format",
                        "json",
                        "--prompt",
                        "What?",
                        "--image",
                        picture("square"),
                        "--max-new-tokens",
                        "8"};
  CHECK(Json::parse(output_of(narrow))["token_ids"].size() > 0);
  CHECK(Json::parse(output_of(narrow + Words{"--num-beams", "2"}))["token_ids"].size() > 0);
}

TEST_CASE("nothing stays on the GPU when a command ends") {
  const std::int64_t before = simulated_cuda::current_bytes();
  generate("cuda", kTinyModel, {"--image", picture("square"), "--max-new-tokens", "3"});
  CHECK(simulated_cuda::current_bytes() == before);
}

TEST_CASE("devices that aren't there are refused") {
  const ProgramResult second = run_here({"generate", "--model", fixture(kTinyModel).string(),
                                         "--device", "cuda:1", "--prompt", "What?"});
  CHECK(second.code == 1);
  CHECK_THAT(second.err, Contains("--device cuda:1: no such GPU: got 1 GPU, wanted cuda:0"));
}

// What a further token costs: of two answers of different lengths the difference.
DeviceCounts cost_of_token(const Words& options) {
  const auto run = [&](std::size_t tokens) {
    const Words length = {"--max-new-tokens", std::to_string(tokens)};
    return counts_of([&] {
      const Json answer = generate("cuda", kTinyModel, options + length);
      REQUIRE(answer["token_ids"].size() == tokens);
    });
  };
  DeviceCounts cost = run(28) - run(12);
  for (std::int64_t* number : {&cost.operators, &cost.waits, &cost.uploads, &cost.downloads,
                               &cost.bytes_up, &cost.bytes_down, &cost.pageable}) {
    CHECK(*number % 16 == 0);
    *number /= 16;
  }
  return cost;
}

TEST_CASE("encoding pictures is waited for once, so that its time is that of the work") {
  const auto waits = [](const Words& options) {
    const Words length = {"--max-new-tokens", "4"};
    return counts_of([&] { generate("cuda", kTinyModel, options + length); }).waits;
  };
  CHECK(waits({"--image", picture("square")}) == waits({}) + 1);
}

// Bounds so that what was fused stays fused. The model has two layers.
TEST_CASE("what a token costs on the GPU") {
  const Words question = {"--image", picture("square")};
  const DeviceCounts greedy = cost_of_token(question);
  CAPTURE(greedy.operators, greedy.uploads, greedy.downloads, greedy.bytes_up);
  CHECK(greedy.operators <= 49);
  CHECK(greedy.waits <= 1);
  CHECK(greedy.uploads == 0);
  CHECK(greedy.pageable == 0);
  CHECK(greedy.bytes_down == 16);  // an id and its log-probability

  const DeviceCounts processed = cost_of_token(question + Words{"--min-new-tokens", "28"});
  CAPTURE(processed.operators);
  CHECK(processed.operators <= 47);
  CHECK(processed.waits <= 1);
  CHECK(processed.bytes_down > 1000);  // all logits
}

}  // namespace
}  // namespace vlm
