// InternVL in its original layout through the program: every command answers in every precision;
// adapters, merges and full fine-tuning keep the layout that was read; runs that were killed go on.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/child_process.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/small_training.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

struct ChatModel {
  std::string folder;
  std::string targets;  // of adapters

  fs::path base() const { return fs::path(VLM_SOURCE_DIR) / folder; }
  std::string name() const { return base().filename().string(); }
};
const ChatModel kChatFolders[] = {
    {"tests/fixtures/internvl_chat_tiny", R"(["q_proj","v_proj","gate_proj"])"},
    {"tests/fixtures/internvl_internlm2_tiny", R"(["wqkv","wo","w1"])"}};

std::vector<Json> read_rows(const fs::path& path) {
  std::vector<Json> rows;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

Json ask_chat(const std::string& choice, const std::string& more = "") {
  const ProgramResult run =
      run_vlm("generate " + choice +
              " --image tests/fixtures/pictures/wide.png --image tests/fixtures/pictures/tall.png "
              "--prompt 'Same?' --max-new-tokens 6 --format json --device cpu --threads 1 " +
              more);
  INFO(run.err);
  REQUIRE(run.code == 0);
  return Json::parse(run.out);
}

TEST_CASE("original layout: every command answers, in every precision") {
  const ScratchFolder folder;
  for (const ChatModel& model : kChatFolders) {
    INFO(model.folder);
    const std::string choice = "--model " + model.folder + " ";
    const Json exact = ask_chat(choice, "--dtype float32");
    CHECK(exact["token_ids"].size() >= 1);
    for (const std::string dtype : {"bfloat16", "int8"}) {
      const Json narrow = ask_chat(choice, "--dtype " + dtype);
      CHECK(narrow["prompt_token_ids"] == exact["prompt_token_ids"]);
      const double first = exact["token_logprobs"][0], near = narrow["token_logprobs"][0];
      CHECK(std::abs(first - near) < 0.3);
    }
    CHECK(ask_chat(choice, "--num-beams 3")["prompt_token_ids"] == exact["prompt_token_ids"]);
    const std::string shared = choice + "--device cpu --threads 1 --max-new-tokens 4 --output ";
    const std::string name = fs::path(model.folder).filename().string();
    const std::string rows = folder.at(name + ".jsonl"), clips = folder.at(name + "_clips.jsonl");
    CHECK(run_vlm("vqa " + shared + rows +
                  " --question 'What?' --question 'Why?' tests/fixtures/pictures/square.png "
                  "tests/fixtures/pictures/wide.png")
              .code == 0);
    CHECK(read_rows(rows).size() == 4);
    CHECK(run_vlm("video " + shared + clips + " --question 'What?' examples/clips/left.mp4").code ==
          0);
    CHECK(read_rows(clips).at(0)["error"].is_null());
    const ProgramResult inspected = run_vlm("inspect " + model.folder + " --format json");
    REQUIRE(inspected.code == 0);
    CHECK(Json::parse(inspected.out)["llm_config"]["hidden_size"] == 16);
  }
}

std::string write_chat_rows(const ScratchFolder& folder) {
  std::string rows;
  for (const std::string picture : {"square", "wide", "tall"}) {
    rows += Json{{"question", "Which one?"},
                 {"answer", picture},
                 {"image", fixture("pictures/" + picture + ".png").string()}}
                .dump() +
            "\n";
  }
  return folder.write("data.jsonl", rows);
}

TEST_CASE("original layout: a killed training ends as one that wasn't, and its merge answers so") {
  const ScratchFolder folder;
  write_chat_rows(folder);
  for (const ChatModel& model : kChatFolders) {
    INFO(model.folder);
    const std::string base = model.base().string(), name = model.name();
    const auto arguments = [&](const std::string& output) {
      return training_arguments(folder.path(), output,
                                {"model_name_or_path=" + base, "max_steps=60", "save_steps=5",
                                 "learning_rate=0.02", "target_modules=" + model.targets});
    };
    ChildProcess whole(arguments(name), folder.at("whole.log"));
    REQUIRE(whole.wait() == 0);
    ChildProcess part(arguments(name + "_parts"), folder.at("part.log"));
    while (!fs::exists(folder.at(name + "_parts/checkpoint-5")) &&
           part.is_running_after(std::chrono::milliseconds(5))) {
    }
    part.kill(SIGKILL);
    part.wait();
    ChildProcess rest(arguments(name + "_parts"), folder.at("rest.log"));
    REQUIRE(rest.wait() == 0);
    const auto adapter = [&](const std::string& output) {
      return read_file(folder.at(output + "/adapter_model.safetensors"));
    };
    CHECK_FALSE(adapter(name).empty());
    CHECK(adapter(name) == adapter(name + "_parts"));
    const std::string merged = folder.at(name + "_merged");
    CHECK(run_vlm("merge --model " + base + " --adapter " + folder.at(name) + " --output " + merged)
              .code == 0);
    const Json ours =
        ask_chat("--model " + base + " --adapter " + folder.at(name), "--dtype float32");
    CHECK(ask_chat("--model " + merged, "--dtype float32")["token_ids"] == ours["token_ids"]);
    CHECK(ask_chat("--model " + base, "--dtype float32")["token_logprobs"] !=
          ours["token_logprobs"]);
  }
}

TEST_CASE("original layout: full fine-tuning writes a checkpoint of the same keys and files") {
  const ScratchFolder folder;
  write_chat_rows(folder);
  for (const ChatModel& model : kChatFolders) {
    INFO(model.folder);
    const std::string base = model.base().string(), name = model.name();
    ChildProcess run(training_arguments(folder.path(), name,
                                        {"model_name_or_path=" + base, "max_steps=3", "method=full",
                                         "learning_rate=0.01"}),
                     folder.at("full.log"));
    REQUIRE(run.wait() == 0);
    for (const auto& entry : fs::directory_iterator(base)) {
      const std::string file = entry.path().filename().string();
      if (file == "golden.safetensors") continue;
      INFO(file);
      CHECK(fs::exists(folder.at(name + "/" + file)));
    }
    const auto keys = [](const std::string& path) {
      const std::string bytes = read_file(path + "/model.safetensors");
      std::uint64_t size = 0;
      std::memcpy(&size, bytes.data(), sizeof size);
      std::set<std::string> found;
      const Json header = Json::parse(bytes.substr(sizeof size, size));
      for (const auto& [key, value] : header.items()) found.insert(key);
      return found;
    };
    CHECK(keys(folder.at(name)) == keys(base));
    ask_chat("--model " + folder.at(name));
  }
}

}  // namespace
}  // namespace vlm
