// A user's first config: `vlm init-config`, then the recipe as it stands trains on data laid out as
// its comments say; keys on the command line.
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kTiny = " model_name_or_path='" + fixture("smolvlm_tiny").string() + "'";
const std::string kOnCpu = " --device cpu --threads 1";

void write_pictures(const ScratchFolder& folder, const std::string& name,
                    const std::string& column) {
  folder.write(name + "/metadata.csv", "file_name," + column + "\na.png,cat\nb.png,dog\n");
  fs::copy(fixture("pictures/square.png"), folder.at(name + "/a.png"));
  fs::copy(fixture("pictures/wide.png"), folder.at(name + "/b.png"));
}

// Every file that a recipe names, as its comments describe it.
void write_data(const ScratchFolder& folder) {
  fs::copy(fixture("pictures/wide.png"), folder.at("a.jpg"));
  fs::copy(fs::path(VLM_SOURCE_DIR) / "examples/clips/left.mp4", folder.at("a.mp4"));
  const std::string row = R"({"image": "a.jpg", "question": "What?", "answer": "a cat"})";
  const std::string clip = R"({"video": "a.mp4", "question": "Where to?", "answer": "left"})";
  const std::string page =
      R"({"image": "a.jpg", "question": "What is the total?", "answers": ["12.50", "$12.50"]})";
  for (const auto& [name, line] :
       {std::pair{"train.jsonl", row}, std::pair{"held_out.jsonl", row},
        std::pair{"clips.jsonl", clip}, std::pair{"held_out_clips.jsonl", clip},
        std::pair{"documents.jsonl", page}, std::pair{"held_out_documents.jsonl", page}}) {
    folder.write(name, line + "\n" + line + "\n");
  }
  for (const std::string part : {"train", "held_out"}) {
    write_pictures(folder, "captions/" + part, "text");
    write_pictures(folder, "pictures/" + part, "label");
  }
}

TEST_CASE("every recipe is written, planned and trained as it stands") {
  const ScratchFolder folder;
  write_data(folder);
  const std::string list = run_vlm("init-config --list").out;
  std::istringstream lines(list);
  int trained = 0;
  for (std::string line; std::getline(lines, line); ++trained) {
    const std::string name = line.substr(0, line.find(' '));
    INFO(name);
    const ProgramResult made = run_vlm("init-config " + name, folder.path());
    INFO(made.err);
    REQUIRE(made.code == 0);
    CHECK_THAT(made.err, Contains("wrote " + name +
                                  ".yaml; set its train_files and output_dir, "
                                  "then: vlm plan " +
                                  name + ".yaml"));
    const bool evaluates =
        read_file(folder.at(name + ".yaml")).find("\neval_steps") != std::string::npos;
    const std::string run =
        " " + name + ".yaml" + kTiny + " max_steps=2" + (evaluates ? " eval_steps=1" : "");
    const ProgramResult plan = run_vlm("plan" + run + kOnCpu, folder.path());
    INFO(plan.err);
    CHECK(plan.code == 0);
    CHECK_THAT(plan.out, Contains("2 samples, 2 steps"));
    const ProgramResult done = run_vlm("finetune" + run + kOnCpu, folder.path());
    INFO(done.err);
    CHECK(done.code == 0);
    CHECK_THAT(done.err, Contains("\nwrote out/smolvlm2_"));
  }
  CHECK(trained == 8);
  std::size_t results = 0;
  for (const auto& output : fs::directory_iterator(folder.at("out"))) {
    INFO(output.path());
    CHECK(fs::exists(output.path() / "adapter_model.safetensors"));
    const Json used = parse_json(read_file(output.path() / "train_config.json"), "");
    CHECK(used["max_steps"] == 2);
    CHECK(used["r"] == 16);
    ++results;
  }
  CHECK(results == 8);  // each has a folder of its own
}

TEST_CASE("init-config overwrites nothing and tells its names") {
  const ScratchFolder folder;
  folder.write("my.yaml", "mine");
  const ProgramResult there = run_vlm("init-config smolvlm2_256m_lora my.yaml", folder.path());
  CHECK(there.code == 1);
  CHECK(there.err ==
        "error: my.yaml: the file is there already (choose another name for the config)\n");
  CHECK(read_file(folder.at("my.yaml")) == "mine");
  const ProgramResult unknown = run_vlm("init-config smolvlm_256m_lora", folder.path());
  CHECK(unknown.code == 1);
  CHECK_THAT(unknown.err, Contains("(did you mean 'smolvlm2_256m_lora'?)"));
  const ProgramResult none = run_vlm("init-config", folder.path());
  CHECK(none.code == 2);
  CHECK_THAT(none.err, Contains("the name of a recipe is required, or --list"));
  const ProgramResult both = run_vlm("init-config smolvlm2_256m_lora --list", folder.path());
  CHECK(both.code == 2);
  CHECK_THAT(both.err, Contains("--list goes without a name"));
  CHECK(folder.names() == std::vector<std::string>{"my.yaml"});
}

TEST_CASE("keys stand behind the config, with or without --set") {
  const ScratchFolder folder;
  write_data(folder);
  const std::string begin = R"(c.yaml)" + kTiny + " 'train_files=[\"train.jsonl\"]'";
  folder.write("c.yaml", "model_name_or_path: none\noutput_dir: out\ntrain_files: []\nr: 4\n");
  const auto used = [&](const std::string& keys) {
    const ProgramResult run =
        run_vlm("finetune " + begin + " max_steps=1 --restart " + keys + kOnCpu, folder.path());
    INFO(run.err);
    CHECK(run.code == 0);
    const OrderedJson config = parse_json(read_file(folder.at("out/train_config.json")), "");
    return std::pair(config["r"].get<int>(), config["learning_rate"].get<double>());
  };
  CHECK(used("learning_rate=1e-3 r=8") == std::pair(8, 1e-3));
  CHECK(used("--set learning_rate=1e-3 r=8") == std::pair(8, 1e-3));
  CHECK(used("r=2 --set r=8 --quiet learning_rate=1e-3") == std::pair(8, 1e-3));
  CHECK(used("--set r=8 --set r=2") == std::pair(2, 5e-5));

  const auto error_of = [&](const std::string& command) {
    const ProgramResult run = run_vlm(command, folder.path());
    CHECK(run.code == 1);
    CHECK(run.out.empty());
    return run.err;
  };
  for (const std::string command : {"finetune", "plan", "inspect-data"}) {
    INFO(command);
    CHECK(error_of(command + " c.yaml much") ==
          "error: command line: not an assignment: got 'much', wanted key=value\n");
    CHECK(error_of(command + " c.yaml learning_rat=1") ==
          "error: command line: unknown key 'learning_rat' (did you mean 'learning_rate'?)\n");
    CHECK(error_of(command + " r=4 c.yaml") ==
          "error: command line: the config file comes first: got 'r=4', wanted CONFIG key=value "
          "…\n");
  }
}

}  // namespace
}  // namespace vlm
