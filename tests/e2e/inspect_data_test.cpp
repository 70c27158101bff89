// `vlm inspect-data` and training on every format of the examples.
#include <filesystem>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"

namespace vlm {
namespace {

const std::vector<std::string> kConfigs = {"format_csv", "format_llava", "format_mixture",
                                           "format_openai", "format_prompt_completion"};

TEST_CASE("every example of a format can be trained on") {
  for (const std::string& name : kConfigs) {
    INFO(name);
    const ProgramResult shown = run_vlm("inspect-data configs/" + name + ".json -n 2 --threads 1");
    CHECK(shown.code == 0);
    CHECK_THAT(shown.out, Contains("[picture 1: not split, ") && Contains("<end_of_utterance>]]") &&
                              Contains("== train_files"));
    CHECK(shown.out.find("ERROR") == std::string::npos);
  }
}

TEST_CASE("files mixed with weights are trained on, and evaluated with the same formats") {
  const ScratchFolder scratch;
  const ProgramResult trained = run_vlm(
      "finetune configs/format_mixture.json --device cpu --threads 1 --set max_steps=2 --set "
      "'eval_files=[\"examples/formats/openai.jsonl\"]' --set output_dir=" +
      scratch.at("out"));
  INFO(trained.err);
  CHECK(trained.code == 0);
  CHECK_THAT(read_file(scratch.at("out/metrics.jsonl")), Contains("eval_loss"));
}

TEST_CASE("inspect-data tells which answers the config's schema doesn't allow") {
  const ScratchFolder scratch;
  const auto row = [](const std::string& answer) {
    return R"({"messages": [{"role": "user", "content": "what?"}, {"role": "assistant", "content": )" +
           answer + "}]}\n";
  };
  const std::string file = scratch.write(
      "t.jsonl", row(R"("{\"n\": 1}")") + row(R"("{\"n\": \"x\"}")") + row(R"("one")"));
  const std::string schema =
      scratch.write("s.json", R"({"properties": {"n": {"type": "integer"}}})");
  const std::string inspect =
      "inspect-data configs/format_openai.json -n 0 --set 'train_files=[\"" + file + "\"]' --set ";
  const ProgramResult told = run_vlm(inspect + "json_schema=" + schema);
  CHECK(told.code == 0);
  CHECK_THAT(told.out, Contains("warning: 2 samples have answers that json_schema doesn't allow") &&
                           Contains(file + ":2: /n: not of type \"integer\"") &&
                           Contains(file + ":3: no JSON"));
  const ProgramResult inlined = run_vlm(inspect + R"('json_schema={"type": "integr"}')");
  CHECK(inlined.code == 1);
  CHECK_THAT(inlined.err, Contains("json_schema: /type: wrong value of a keyword"));
}

TEST_CASE("inspect-data writes a page, and fails on data that can't be trained on") {
  const ScratchFolder scratch;
  const std::string page = scratch.at("page.html");
  CHECK(run_vlm("inspect-data configs/format_openai.json -n 3 --html " + page).code == 0);
  CHECK_THAT(read_file(page), Contains("data:image/jpeg;base64,") && Contains("class=\"learned\""));

  // A row whose clip can't be read is told, and the rows around it are shown.
  const std::string clips = std::string(VLM_SOURCE_DIR) + "/examples/clips/";
  const std::string row = R"({"video": ")",
                    end_of_row = R"(", "question": "Where?", "answer": "up"})";
  const std::string videos =
      scratch.write("v.jsonl", row + clips + "up.mp4" + end_of_row + "\n" + row +
                                   scratch.at("gone.mp4") + end_of_row + "\n");
  run_vlm("inspect-data configs/format_openai.json -n 2 --html " + page +
          " --set model_name_or_path=models/motion --set 'train_files=[\"" + videos + "\"]'");
  CHECK_THAT(read_file(page), Contains("<figure class=\"clip\">") && Contains("up.mp4, 0.3 s") &&
                                  Contains("up.mp4, 2.6 s") && Contains("gone.mp4: "));

  const std::string file =
      scratch.write("t.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"only asks\"}]}\n");
  const ProgramResult nothing =
      run_vlm("inspect-data configs/format_openai.json --set 'train_files=[\"" + file + "\"]'");
  CHECK(nothing.code == 3);
  CHECK_THAT(nothing.out, Contains(file + ":1: sample has nothing to learn"));
  const ProgramResult missing =
      run_vlm("inspect-data configs/format_openai.json --set 'train_files=[\"nowhere.json\"]'");
  CHECK(missing.code == 1);
  CHECK_THAT(missing.err, Contains("nowhere.json: no such file or folder"));
}

}  // namespace
}  // namespace vlm
