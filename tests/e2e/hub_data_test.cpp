// hf://datasets/org/name as rows to ask, caption, evaluate and train on: split, config, revision,
// names that aren't there, and what is read without a connection.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/hub/hub_server.h"
#include "tests/support/run_program.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kAnswering =
    " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 --max-new-tokens 2 "
    "--batch-size 2 ";
const std::string kSet = "hf://datasets/org/shapes";

// A hub with one data set: a table (train), lines (test), a config of its own with a picture folder
// named "folder", and an empty cache.
struct DataHub {
  EnvironmentGuard environment;
  ScratchFolder scratch;
  HubServer server;
  std::string out = scratch.at("out.jsonl");

  DataHub() {
    const auto file = [](const std::string& name) { return read_file(fixture(name)); };
    server.model = "org/shapes";
    server.is_dataset = true;
    server.files = {
        {"README.md", {.content = R"(---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
  - split: test
    path: data/test.jsonl
- config_name: folder
  data_files:
  - split: train
    path: folder/*
---
Shapes.
)"}},
        {"data/train-00000-of-00001.parquet",
         {.content = file("tables/asked.parquet"), .is_lfs = true}},
        {"data/test.jsonl", {.content = R"({"id": "t0", "question": "Red?", "answer": "yes"}
{"id": "t1", "question": "Blue?", "answer": "no"}
)"}},
        {"folder/metadata.jsonl", {.content = R"({"file_name": "square.png", "text": "a square"}
)"}},
        {"folder/square.png", {.content = file("pictures/square.png"), .is_lfs = true}}};
    ::setenv("HF_ENDPOINT", server.endpoint().c_str(), 1);
    ::setenv("HF_HUB_CACHE", scratch.at("hub").c_str(), 1);
  }

  // A command about the data set, its rows written anew to `out`.
  ProgramResult run(const std::string& command, const std::string& more = "") const {
    return run_vlm(command + " " + more + kAnswering + "--restart --output " + out);
  }

  // "ID QUESTION" of every row that was written, "!" behind those with an error.
  std::string rows() const {
    std::istringstream in(read_file(out));
    std::string text;
    for (std::string line; std::getline(in, line);) {
      const Json row = parse_json(line, out);
      text += row["id"].get<std::string>() + " " + row.value("question", "-") +
              (row.contains("error") ? "!" : "") + "\n";
    }
    return text;
  }
};

const std::string kTestRows = "t0 Red?\nt1 Blue?\n";

TEST_CASE(
    "questions of a data set of the hub are asked: its table, another split, another config") {
  const DataHub hub;
  const auto table = hub.run("vqa " + kSet);
  INFO(table.err);
  CHECK(table.code == 3);  // one of the twelve pictures is none
  CHECK_THAT(hub.rows(), Contains("r0 What is it, 0?\n") && Contains("r6 What is it, 6?!\n") &&
                             Contains("r11 What is it, 11?\n"));
  CHECK(hub.server.count("GET", "/cdn/") == 1);  // the picture folder isn't asked for

  const auto test = hub.run("vqa " + kSet, "--split test");
  INFO(test.err);
  CHECK(test.code == 0);
  CHECK(hub.rows() == kTestRows);

  const auto folder =
      hub.run("caption " + kSet, "--config-name folder --revision v1 --prompt Describe.");
  INFO(folder.err);
  CHECK(folder.code == 0);
  CHECK(hub.rows() == kSet + "/folder/metadata.jsonl:1 -\n");
}

TEST_CASE("evaluate and finetune read a data set of the hub with the same names") {
  const DataHub hub;
  const auto scored = hub.run("evaluate " + kSet, "--split test --metric exact_match");
  INFO(scored.err);
  CHECK(scored.code == 0);
  CHECK_THAT(scored.out, Contains("\"total\":2"));
  CHECK(hub.rows() == "0 Red?\n1 Blue?\n");
  const Json config = {{"model_name_or_path", fixture("smolvlm_tiny").string()},
                       {"output_dir", hub.scratch.at("run")},
                       {"max_steps", 1},
                       {"train_files", {{{"path", kSet}, {"split", "test"}, {"revision", "v1"}}}}};
  const auto trained = run_vlm("finetune " + hub.scratch.write("run.json", config.dump()) +
                               " --device cpu --threads 1");
  INFO(trained.err);
  CHECK(trained.code == 0);
}

TEST_CASE(
    "splits, configs, revisions and data sets that aren't there are told with those that are") {
  const DataHub hub;
  const auto error = [&](const std::string& command, const std::string& more = "") {
    const ProgramResult result = hub.run(command, more);
    CHECK(result.code == 1);
    CHECK_FALSE(fs::exists(hub.out));
    return result.err;
  };
  for (const std::string command : {"vqa ", "caption --prompt Hi ", "evaluate "}) {
    INFO(command);
    CHECK(error(command + kSet, "--split dev") ==
          "error: " + kSet +
              ": org/shapes: no split 'dev' in the data set: wanted split, one of "
              "test, train, or all\n");
    CHECK_THAT(error(command + kSet, "--config-name small"),
               Contains(kSet) && Contains("no config 'small' in the data set: wanted config_name, "
                                          "one of default, folder"));
    CHECK_THAT(error(command + kSet, "--revision v9"), Contains(kSet) && Contains("v9"));
    CHECK_THAT(error(command + kSet + "@v1", "--revision v1"),
               Contains("not the name of a data set on a hub"));
    CHECK_THAT(error(command + "hf://datasets/org/shape"), Contains("hf://datasets/org/shape"));
    CHECK_THAT(error(command + kSet + "/data/dev.jsonl"),
               Contains("no such file in the repository: got data/dev.jsonl"));
  }
}

TEST_CASE("offline, the cache is read without a request, and what it lacks is told") {
  const DataHub hub;
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  const auto empty = hub.run("vqa " + kSet, "--split test");
  CHECK(empty.code == 1);
  CHECK_THAT(empty.err, Contains(kSet) && Contains("no such data set in the cache") &&
                            Contains("HF_HUB_OFFLINE is set"));
  ::unsetenv("HF_HUB_OFFLINE");
  REQUIRE(hub.run("vqa " + kSet, "--split test").code == 0);
  const std::string online = read_file(hub.out);

  ::setenv("HF_HUB_OFFLINE", "1", 1);
  const auto requests = hub.server.requests().size();
  CHECK(hub.run("vqa " + kSet, "--split test").code == 0);
  CHECK(read_file(hub.out) == online);
  CHECK(hub.run("vqa " + kSet + "/data/*.jsonl").code == 0);
  CHECK(read_file(hub.out) == online);
  // Only a part of the data set is there: neither its other split nor its other config.
  for (const char* more : {"--split train", "--config-name folder"}) {
    INFO(more);
    const auto lacking = hub.run("vqa " + kSet, more);
    CHECK(lacking.code == 1);
    CHECK_THAT(lacking.err,
               Contains("HF_HUB_OFFLINE is set") && Contains("vlm pull --repo-type dataset"));
  }
  CHECK(hub.server.requests().size() == requests);
}

}  // namespace
}  // namespace vlm
