// Every family of models on the GPU: answers, rows and trainings of the CPU.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/gpu/training.h"
#include "tests/support/simulated_cuda/device.h"

namespace vlm {
namespace {

struct Family {
  std::string model;
  bool has_pictures = true;
  std::string targets = R"(target_modules=["q_proj","v_proj","gate_proj"])";
};

const std::vector<Family> kFamilies = {{"granite_tiny"},
                                       {"llama_tiny", false},
                                       {"qwen2_tiny", false},
                                       {"qwen3_tiny", false},
                                       {"phi3_tiny", false, R"(target_modules=["qkv_proj"])"},
                                       {"qwen2_vl_tiny"},
                                       {"qwen2_5_vl_tiny"},
                                       {"qwen3_vl_tiny"},
                                       {"internvl_tiny"},
                                       {"internvl3_5_tiny"}};

std::string picture_file(const std::string& name) {
  return fixture("pictures/" + name + ".png").string();
}

// Equal but for rounding; without times.
void check_like(const Json& found, const Json& wanted) {
  INFO(found.dump() << " and " << wanted.dump());
  REQUIRE(found.type() == wanted.type());
  if (wanted.is_number_float()) {
    CHECK(found.get<double>() == Approx(wanted.get<double>()).margin(2e-4).epsilon(2e-4));
  } else if (wanted.is_structured()) {
    REQUIRE(found.size() == wanted.size());
    for (const auto& [key, value] : wanted.items()) {
      if (key == "timing" || key == "peak_rss_mb") continue;
      check_like(found.at(Json::json_pointer() / key), value);
    }
  } else {
    CHECK(found == wanted);
  }
}

Words model_on(const Family& family, const std::string& device) {
  Words words = {"--model",   fixture(family.model).string(),
                 "--dtype",   "float32",
                 "--threads", "1",
                 "-q",        "--device",
                 device};
  const bool is_recorded = device == "cuda" && family.model != "phi3_tiny";
  if (is_recorded) words.emplace_back("--cuda-graph");
  return words;
}

Words joined(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST_CASE("models of every family answer on the GPU as on the CPU") {
  const std::vector<Words> searches = {
      {"--max-new-tokens", "12"},
      {"--max-new-tokens", "12", "--num-beams", "3", "--num-return-sequences", "2"},
      {"--max-new-tokens", "12", "--do-sample", "--temperature", "2", "--seed", "7"},
      {"--choices", "a cat,two dogs,no"}};
  for (const Family& family : kFamilies) {
    for (const Words& search : searches) {
      INFO(family.model << " " << search.back());
      Words words = {"generate", "--prompt", "What is this?", "--format", "json"};
      if (family.has_pictures) words = joined(words, {"--image", picture_file("square")});
      words = joined(words, search);
      check_like(Json::parse(output_of(joined(words, model_on(family, "cuda")))),
                 Json::parse(output_of(joined(words, model_on(family, "cpu")))));
    }
  }
}

Json rows_on(const Family& family, const std::string& device, const Words& options) {
  const ScratchFolder folder;
  const Words command = {
      "vqa",      picture_file("square"), picture_file("wide"), picture_file("tall"), "--question",
      "What?",    "--question",           "Is there a circle?", "--max-new-tokens",   "9",
      "--output", folder.at("rows.jsonl")};
  output_of(joined(joined(command, options), model_on(family, device)));
  std::ifstream in(folder.at("rows.jsonl"));
  Json rows = Json::array();
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

TEST_CASE("pictures asked in batches get the CPU's rows on the GPU, in every family") {
  for (const Family& family : kFamilies) {
    if (!family.has_pictures) continue;
    for (const Words& options :
         {Words{"--batch-size", "2"}, Words{"--batch-size", "2", "--num-beams", "2"}}) {
      INFO(family.model << " " << options.back());
      const Json wanted = rows_on(family, "cpu", options);
      REQUIRE(wanted.size() == 6);
      for (const Json& row : wanted) CHECK_FALSE(row.contains("error"));
      check_like(rows_on(family, "cuda", options), wanted);
    }
  }
}

TEST_CASE("fine-tuning on the GPU takes the CPU's steps, in every family") {
  for (const Family& family : kFamilies) {
    const ScratchFolder folder;
    write_questions(folder.path() / "data.jsonl", 4);
    if (!family.has_pictures) {
      std::ofstream out(folder.path() / "data.jsonl");
      for (const std::string answer : {"a cat", "two dogs", "at home", "now"}) {
        out << Json{{"prompt", "What?"}, {"completion", answer}}.dump() << "\n";
      }
    }
    for (const std::string method : {"lora", "qlora"}) {
      for (const std::string packing : {"packing=false", "packing=true"}) {
        INFO(family.model << " " << method << " " << packing);
        const Words settings = {"model_name_or_path=" + fixture(family.model).string(),
                                "method=" + method, packing, family.targets,
                                "per_device_train_batch_size=2"};
        const std::string name = method + packing;
        fine_tune(folder, name + " cpu", "cpu", settings);
        fine_tune(folder, name + " gpu", "cuda", settings);
        check_same_run(folder.path() / (name + " gpu"), folder.path() / (name + " cpu"));
      }
    }
  }
}

}  // namespace
}  // namespace vlm
