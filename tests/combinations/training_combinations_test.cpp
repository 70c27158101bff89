// Trainings drawn from every combination of keys: each ends, is finite, is bit by bit the same when
// it was cut and went on, gives the answers that the trainer saw, and leaves its own files alone.
#include <signal.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/combinations/draws.h"
#include "tests/combinations/training_result.h"
#include "tests/combinations/training_run.h"
#include "tests/support/run_program.h"
#include "tests/support/small_training.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// What the program says of combinations that mean nothing. An error that isn't here is a fault.
const std::vector<std::string> kRightRefusals = {
    "pissa needs method lora",
    "augmented pictures can't be shared",
    "packed rows have no padding",
    "warm-up and decay are longer than the run",
    "nothing is left to train",
    "nothing is trained in the part that has a learning rate of its own",
    "no module matches",
    "no adapted module matches",
    "no adapted module is in the layer",
    "an entry hits only modules that are left out",
    "a module can't be adapted",
    "pissa splits weights, and can't keep them tied",
    "pissa can't split the layer's weight",
    "tied layers need one rank",
    "tied layers have other rows",
    "nothing that is tied is trained",
    "the adapter is of another method",
    "the model's output head has a weight of its own",
    "needs a list in target_modules",
    "every sample is skipped",
    "every sample that eval_max_samples chooses is skipped",
    "every sample of the data is skipped",
    "the layer has an adapter as well",
    "the layer is trained as a whole as well",
    "there is nothing to choose from",
    "the run ends before it could be stopped early",
};

std::string find_refusal(const std::string& error) {
  for (const std::string& text : kRightRefusals) {
    if (error.find(text) != std::string::npos) return text;
  }
  return "";
}

// Draws until the program takes one; it has then run into folder/whole.
TrainingDraw run_whole(Dice& dice, const fs::path& folder, DrawReport& report) {
  for (;;) {
    const TrainingDraw draw = draw_training(dice, folder);
    const ProgramEnd end = run_training(draw, folder, "whole");
    if (end.code == 0) return draw;
    const std::string refusal = find_refusal(end.error());
    expect(end.code == 1 && !refusal.empty(),
           "the whole run ended with " + std::to_string(end.code) + ": " + end.log +
               "\n  config: " + draw.config.dump() + "\n  --dtype " + draw.dtype);
    expect(repeatable_metrics(folder / "whole").empty(),
           "refused behind its first step: " + refusal);
    ++report.refused[refusal];
    for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
  }
}

void run_parts(const TrainingDraw& draw, const fs::path& folder) {
  for (const TrainingCut& cut : draw.cuts) {
    const ProgramEnd end = run_cut_training(draw, cut, folder, "parts");
    const bool is_peer = cut.hits_one && end.log.find("lost another process") != std::string::npos;
    // Processes that are told by another one count as ended by SIGTERM.
    const bool is_early =
        cut.signal != SIGKILL && (end.code == 128 + cut.signal || end.code == 128 + SIGTERM);
    expect(end.code == 0 || end.code == 128 + SIGKILL || is_peer || is_early,
           "cut by signal " + std::to_string(cut.signal) + " it ended with " +
               std::to_string(end.code) + ": " + end.log);
  }
  const ProgramEnd end = run_training(draw, folder, "parts");
  expect(end.code == 0, "gone on with, it ended with " + std::to_string(end.code) + ": " + end.log);
}

// The same command behind the end of the run changes no result.
void run_again(const TrainingDraw& draw, const fs::path& folder) {
  fs::copy(folder / "whole", folder / "before", fs::copy_options::recursive);
  const ProgramEnd end = run_training(draw, folder, "whole");
  expect(end.code == 0,
         "done and run again, it ended with " + std::to_string(end.code) + ": " + end.log);
  expect_same_results(folder / "before", folder / "whole");
}

std::vector<std::string> result_arguments(const TrainingDraw& draw, const fs::path& folder) {
  const std::string output = (folder / "whole").string();
  std::vector<std::string> words = {"--device", "cpu",      "--threads", "1",
                                    "--dtype",  draw.dtype, "--model"};
  if (draw.config["method"] == "full") {
    words.push_back(output);
  } else {
    words.insert(words.end(), {draw.config["model_name_or_path"], "--adapter", output});
  }
  return words;
}

ProgramEnd run_result(const TrainingDraw& draw, const fs::path& folder, const std::string& name,
                      std::vector<std::string> words) {
  const auto more = result_arguments(draw, folder);
  words.insert(words.end(), more.begin(), more.end());
  const ProgramEnd end = run_call(make_call(folder, name, words));
  expect(end.code == 0,
         name + " of the result ended with " + std::to_string(end.code) + ": " + end.log);
  return end;
}

constexpr const char* kSpace = " \t\n\v\f\r";

// What the trainer's last evaluation answered is what `vlm evaluate` answers with the result.
void check_answers(const TrainingDraw& draw, const fs::path& folder) {
  std::vector<std::string> words = {"evaluate"};
  for (const Json& file : draw.config["eval_files"]) {
    if (file.is_object()) return;  // a weight changes what the samples are
    words.push_back(file);
  }
  const fs::path rows = folder / "rows.jsonl";
  const auto add = [&](const char* flag, const char* key) {
    if (!draw.config.contains(key)) return;
    const Json& value = draw.config[key];
    words.insert(words.end(), {flag, value.is_string() ? value.get<std::string>() : value.dump()});
  };
  words.insert(words.end(), {"--output", rows.string()});
  add("--max-new-tokens", "eval_max_new_tokens");
  add("--max-frames", "video_max_frames");
  add("--sampling", "video_strategy");
  add("--frame-size", "video_frame_size");
  if (draw.config.value("video_drop_duplicates", false)) words.push_back("--drop-duplicates");
  const ProgramEnd end = run_result(draw, folder, "evaluate", words);
  // In other precisions, and on a base in 4 bits, the trainer's model rounds otherwise.
  if (draw.dtype != "float32" || draw.config["method"] == "qlora") return;
  std::vector<std::string> texts;
  std::istringstream in(read_file(rows));
  for (std::string line; std::getline(in, line);) texts.push_back(Json::parse(line).at("text"));
  std::istringstream answers(read_file(folder / "whole/eval_answers.jsonl"));
  for (std::string line; std::getline(answers, line);) {
    const Json answer = Json::parse(line);
    std::string text = texts.at(answer.at("index").get<std::size_t>());
    text.erase(0, text.find_first_not_of(kSpace));
    text.erase(text.find_last_not_of(kSpace) + 1);
    expect(text == answer.at("answer"),
           "evaluate answers '" + text + "', the trainer's evaluation " + answer.dump());
  }
}

// The result answers, and so does what merge makes of it, with the same words.
void check_merge(const TrainingDraw& draw, const fs::path& folder) {
  const std::string merged = (folder / "merged").string();
  const std::vector<std::string> ask = {
      "generate",         "--image", fixture("pictures/wide.png").string(), "--prompt", "What?",
      "--max-new-tokens", "4"};
  const std::string wanted = run_result(draw, folder, "generate", ask).log;
  if (draw.config["method"] == "full") return;
  const ProgramEnd merge =
      run_call(make_call(folder, "merge",
                         {"merge", "--model", draw.config["model_name_or_path"], "--adapter",
                          (folder / "whole").string(), "--output", merged}));
  expect(merge.code == 0, "merge ended with " + std::to_string(merge.code) + ": " + merge.log);
  std::vector<std::string> words = ask;
  words.insert(words.end(), {"--device", "cpu", "--threads", "1", "--model", merged});
  const ProgramEnd end = run_call(make_call(folder, "merged", words));
  expect(end.code == 0, "the merged model ended with " + std::to_string(end.code) + ": " + end.log);
}

void check_draw(const TrainingDraw& draw, const fs::path& folder) {
  const fs::path whole = folder / "whole";
  expect_owned_files(whole, draw.config);
  expect_finite(whole);
  run_parts(draw, folder);
  expect_same_results(whole, folder / "parts");
  expect_owned_files(folder / "parts", draw.config);
  run_again(draw, folder);
  if (!draw.config.value("eval_metrics", Json::array()).empty()) check_answers(draw, folder);
  check_merge(draw, folder);
  expect(fs::is_empty(folder / "place"), "a file was left in the current folder");
}

void draw_one(Dice& dice, const fs::path& folder, DrawReport& report) {
  const TrainingDraw draw = run_whole(dice, folder, report);
  try {
    check_draw(draw, folder);
  } catch (const std::exception& failure) {
    std::string cuts;
    for (const TrainingCut& cut : draw.cuts) {
      cuts += " " + std::to_string(cut.signal) + " at row " + std::to_string(cut.rows);
    }
    throw DrawFailed(std::string(failure.what()) + "\n  config: " + draw.config.dump() +
                     "\n  --dtype " + draw.dtype +
                     ", processes: " + std::to_string(draw.processes) + ", cut by signals" + cuts);
  }
}

TEST_CASE("drawn trainings end as they should, however they are cut", "[training]") {
  run_draws("training", draw_one);
}

}  // namespace
}  // namespace vlm
