#include "tests/combinations/batch_draw.h"

#include <signal.h>

#include <fstream>

#include "tests/combinations/batch_inputs.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

void add(Words& words, std::initializer_list<std::string> more) {
  words.insert(words.end(), more);
}

void draw_decoding(Dice& dice, Words& words) {
  add(words, {"--max-new-tokens", std::to_string(dice.between(1, 4))});
  switch (dice.between(0, 5)) {
    case 0:
      add(words, {"--num-beams", "3"});
      if (dice.chance(0.5)) add(words, {"--num-return-sequences", "2"});
      break;
    case 1:
      add(words, {"--temperature", "0.9", "--seed", "5"});
      if (dice.chance(0.3)) add(words, {"--top-p", "0.8"});
      break;
    case 2:
      add(words, {"--choices", "yes", "no", "perhaps not"});
      if (dice.chance(0.5)) add(words, {"--choice-score", "mean"});
      if (dice.chance(0.5)) add(words, {"--abstain-below", "0.4"});
      break;
    default:
      if (dice.chance(0.2)) add(words, {"--repetition-penalty", "1.3"});
      if (dice.chance(0.2)) add(words, {"--min-new-tokens", "2"});
      if (dice.chance(0.1)) add(words, {"--keep-special-tokens"});
      if (dice.chance(0.2)) add(words, {"--prompt-lookup", "3"});
      if (dice.chance(0.1))
        add(words, {"--answer-format", dice.pick({"doctags", "markdown", "html"})});
  }
}

void draw_questions(Dice& dice, const fs::path& folder, const BatchInputs& inputs, Words& words) {
  const bool asks = inputs.asks && dice.chance(0.7);
  if (asks) return;
  const int count = dice.between(1, 3);
  if (dice.chance(0.3)) {
    const fs::path file = folder / "questions.jsonl";
    std::ofstream out(file);
    for (int i = 0; i < count; ++i) {
      out << R"({"id": "q)" << i << R"(", "question": "Is it )" << i << R"(?"})"
          << "\n";
    }
    add(words, {"--questions", file.string()});
    return;
  }
  for (int i = 0; i < count; ++i) {
    add(words, {"--question", i == 1 ? "What is {name}?" : "How many, " + std::to_string(i) + "?"});
  }
}

void draw_output(Dice& dice, const BatchInputs& inputs, BatchDraw& draw) {
  const std::string format = dice.pick({"jsonl", "jsonl", "csv", "parquet", "openai", "txt"});
  draw.suffix = format == "csv" || format == "parquet" ? "." + format : ".jsonl";
  if (format == "openai") add(draw.arguments, {"--output-format", "openai"});
  if (format == "txt" && inputs.has_files) add(draw.arguments, {"--output-format", "txt"});
}

void draw_running(Dice& dice, const fs::path& folder, BatchDraw& draw) {
  draw.in_input_order = dice.chance(0.7);
  if (!draw.in_input_order) add(draw.arguments, {"--order", "completion"});
  add(draw.arguments, {"--batch-size", std::to_string(dice.between(1, 3)), "--workers",
                       std::to_string(dice.between(1, 3)), "--device", "cpu", "--threads", "1"});
  if (dice.chance(0.3)) add(draw.arguments, {"--feature-cache", (folder / "features").string()});
  if (dice.chance(0.2)) add(draw.arguments, {"--dtype", dice.pick({"float32", "int8"})});
  if (dice.chance(0.2)) draw.shards = dice.between(2, 3);
  draw.by_environment = dice.chance(0.5);
  if (dice.chance(0.2)) add(draw.arguments, {"--kv-dtype", dice.pick({"bfloat16", "int8"})});
  if (dice.chance(0.15)) add(draw.arguments, {"--retry-errors"});
  if (dice.chance(0.1)) add(draw.arguments, {"--item-timeout", "100"});
  draw.cuts.resize(static_cast<std::size_t>(dice.between(1, 3)));
  for (BatchCut& cut : draw.cuts) {
    cut.signal = dice.pick(std::vector<int>{SIGKILL, SIGKILL, SIGKILL, SIGTERM, SIGINT, SIGHUP});
    cut.rows = dice.between(0, 6);
    cut.later = std::chrono::microseconds(dice.below(5000));
    cut.has_rival = dice.chance(0.15);
  }
}

// A change of the inputs that a run which goes on must notice.
void draw_replacement(const BatchInputs& inputs, BatchDraw& draw) {
  const fs::path file = inputs.rows.empty() ? inputs.list : inputs.rows;
  if (file != "/dev/null") {
    const std::string text = read_file(file);
    draw.replace_inputs = [file, text] {
      const auto first = text.find('\n'), second = text.find('\n', first + 1);
      std::ofstream(file) << text.substr(0, first + 1) << text.substr(second + 1);  // a row less
    };
    draw.restore_inputs = [file, text] { std::ofstream(file) << text; };
  } else if (!inputs.folder.empty()) {
    const fs::path more = inputs.folder / "0.png", clip = inputs.folder / "0.mp4";
    draw.replace_inputs = [more, clip] {
      fs::copy_file(fixture("pictures/wide.png"), more);
      fs::copy_file(fs::path(VLM_SOURCE_DIR) / "examples/clips/up.mp4", clip);
    };
    draw.restore_inputs = [more, clip] {
      fs::remove(more);
      fs::remove(clip);
    };
  }
}

}  // namespace

BatchDraw draw_batch(Dice& dice, const fs::path& folder) {
  BatchDraw draw;
  const std::string command = dice.pick({"caption", "vqa", "vqa", "vqa", "evaluate", "video"});
  const BatchInputs inputs = command == "evaluate" ? draw_evaluation_inputs(dice, folder)
                             : command == "video"  ? draw_video_inputs(dice, folder)
                                                   : draw_picture_inputs(dice, folder);
  draw.arguments = {command};
  add(draw.arguments, {"--model", fixture(dice.pick({"smolvlm_tiny", "smolvlm_odd", "qwen2_vl_tiny",
                                                     "qwen2_5_vl_tiny", "qwen3_vl_tiny",
                                                     "internvl_tiny", "internvl3_5_tiny"}))
                                      .string()});
  draw.list = inputs.list;
  if (command == "vqa" || command == "video") draw_questions(dice, folder, inputs, draw.arguments);
  if (command == "caption" && dice.chance(0.5)) add(draw.arguments, {"--prompt", "Say {stem}."});
  if (command == "video") add(draw.arguments, {"--max-frames", "2"});
  draw_decoding(dice, draw.arguments);
  if (command == "evaluate") {
    draw.suffix = ".jsonl";
    if (dice.chance(0.5)) add(draw.arguments, {"--metric", "anls"});
  } else {
    if (dice.chance(0.2)) add(draw.arguments, {"--system", "Be short."});
    draw_output(dice, inputs, draw);
  }
  draw_running(dice, folder, draw);
  draw_replacement(inputs, draw);
  add(draw.arguments, {"--"});  // behind it the inputs: --choices takes several words
  draw.arguments.insert(draw.arguments.end(), inputs.paths.begin(), inputs.paths.end());
  return draw;
}

}  // namespace vlm
