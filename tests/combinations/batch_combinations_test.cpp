// Batch runs drawn from every combination of inputs, questions, outputs and options: killed and
// damaged in between, each ends with the rows of one that wasn't, or tells what is wrong.
#include <signal.h>

#include <algorithm>
#include <regex>
#include <sstream>
#include <thread>

#include "data/formats/row_source.h"
#include "tests/combinations/batch_damage.h"
#include "tests/combinations/batch_draw.h"
#include "tests/combinations/draws.h"
#include "tests/combinations/program_end.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// What the program says of combinations that mean nothing. An error that isn't here is a fault.
const std::vector<std::string> kRightRefusals = {
    "no question",
    "unknown field",
};

// What it says of files that it can't go on with.
const std::vector<std::string> kRightTellings = {
    "the output holds rows, and no journal tells of which run",
    "the output is there already, and is of another run",
    "the journal doesn't fit the output",
    "the rows already there were made with other options",
    "journal of another version",
    "not a journal, but its name is one of this output",
    "the journal's first line is damaged",
};

std::string find_text(const std::vector<std::string>& known, const std::string& error) {
  for (const std::string& text : known) {
    if (error.find(text) != std::string::npos) return text;
  }
  return "";
}

std::string words_of(const BatchDraw& draw) {
  std::string words;
  for (const std::string& word : draw.arguments) words += " '" + word + "'";
  return words;
}

bool is_done(const ProgramEnd& end) {
  return end.code == 0 || end.code == 3;
}

// One output of a draw: the whole run's, or a shard's.
class BatchRun {
 public:
  BatchRun(const BatchDraw& draw, fs::path folder, fs::path output, int shard = 0)
      : draw_(draw), folder_(std::move(folder)), output_(std::move(output)), shard_(shard) {}

  // To its end.
  ProgramEnd run(const std::string& more = "") const {
    return run_call(make(more, output_.stem().string()));
  }

  ProgramEnd run_cut(const BatchCut& cut) const {
    Processes one;
    one.push_back(std::make_unique<ForkedProgram>(make("", output_.stem().string())));
    wait_until(one, [&] {
      const std::string text = read_file(file());
      return std::count(text.begin(), text.end(), '\n') >= cut.rows;
    });
    if (cut.has_rival) run_rival();
    std::this_thread::sleep_for(cut.later);
    one[0]->kill(cut.signal);
    return wait_for(one);
  }

  // The file that rows are added to: the output, or what lies beside a table.
  fs::path file() const {
    fs::path path = output_;
    if (draw_.shards > 1 && shard_ >= 0) {
      path.replace_extension(".shard-" + std::to_string(shard_) + "-of-" +
                             std::to_string(draw_.shards));
      path += draw_.suffix;
    }
    if (path.extension() == ".parquet") path += ".jsonl";
    return path;
  }

 private:
  // A second run of the same command: refused while the first one writes, or first itself. The
  // rows show it when both wrote.
  void run_rival() const {
    const ProgramEnd end = run_call(make("", "rival"));
    const bool is_refused =
        end.code == 1 && (end.error().find("another run") != std::string::npos ||
                          !find_text(kRightTellings, end.error()).empty());
    expect(is_done(end) || is_refused, "a second run ended with " + end.log);
  }

  ProgramCall make(const std::string& more, const std::string& name) const {
    std::vector<std::string> words = draw_.arguments;
    std::vector<std::string> places = {"--output", output_.string()};
    const std::string index = std::to_string(shard_), count = std::to_string(draw_.shards);
    const bool is_told = shard_ >= 0 && draw_.by_environment;
    if (!is_told) {
      const std::string shard = shard_ < 0 ? "0/1" : index + "/" + count;
      places.insert(places.end(), {"--shard", shard});
    }
    // Both together are refused.
    if (more == "--restart") std::erase(words, "--retry-errors");
    if (!more.empty()) places.push_back(more);
    words.insert(words.begin() + 1, places.begin(), places.end());
    ProgramCall call = make_call(folder_, name, words);
    call.input = draw_.list;
    if (is_told) call.variables.insert({{"RANK", index}, {"WORLD_SIZE", count}});
    return call;
  }

  const BatchDraw& draw_;
  fs::path folder_, output_;
  int shard_;
};

constexpr int kWhole = -1;  // in place of a shard

// Draws until the program takes one; its rows are then in folder/whole.
std::pair<BatchDraw, int> run_whole(Dice& dice, const fs::path& folder, DrawReport& report) {
  for (;;) {
    const BatchDraw draw = draw_batch(dice, folder);
    const BatchRun run(draw, folder, folder / "whole" / ("rows" + draw.suffix), kWhole);
    fs::create_directories(folder / "whole");
    const ProgramEnd end = run.run();
    if (is_done(end)) return {draw, end.code};
    const std::string refusal = find_text(kRightRefusals, end.error());
    expect(end.code == 1 && !refusal.empty(), "the whole run ended with " +
                                                  std::to_string(end.code) + ": " + end.log +
                                                  "\n  command: vlm" + words_of(draw));
    expect(fs::is_empty(folder / "whole"), "refused, it left a file: " + refusal);
    ++report.refused[refusal];
    for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
  }
}

// Other inputs are refused, and cost nothing.
void try_other_inputs(const BatchDraw& draw, const BatchRun& run, std::string& story) {
  const fs::path journal = run.file().string() + ".journal";
  const std::string before = read_file(run.file());
  if (!draw.replace_inputs || read_file(journal).find('\n') == std::string::npos) return;
  story += ", other inputs";
  draw.replace_inputs();
  const ProgramEnd end = run.run();
  draw.restore_inputs();
  const bool is_told = end.error().find("inputs") != std::string::npos ||
                       !find_text(kRightTellings, end.error()).empty();
  expect(end.code == 1 && is_told, "other inputs are taken: " + end.log);
  expect(read_file(run.file()) == before, "other inputs changed the output");
}

// The file's text; of a table its rows, a line each.
std::string text_of(const fs::path& path) {
  if (path.extension() != ".parquet") return read_file(path);
  const auto rows = data::open_rows(path);
  std::string text;
  for (std::int64_t i = 0; i < rows->size(); ++i) text += rows->at(i).columns.dump() + "\n";
  return text;
}

// Fractions left out: their last digits depend on what was computed beside them.
std::string read_rows(const fs::path& path, bool in_input_order) {
  static const std::regex fraction("-?[0-9]+\\.[0-9]+(e-?[0-9]+)?");
  const std::string text = std::regex_replace(text_of(path), fraction, "#");
  if (in_input_order) return text;
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::sort(lines.begin(), lines.end());
  std::string sorted;
  for (const std::string& line : lines) sorted += line + "\n";
  return sorted;
}

// Cuts, damage, and the run to its end. `story` tells what happened.
void run_parts(const BatchDraw& draw, const BatchRun& run, int code, Dice& dice, DrawReport& report,
               std::string& story) {
  for (const BatchCut& cut : draw.cuts) {
    const ProgramEnd end = run.run_cut(cut);
    story += ", signal " + std::to_string(cut.signal) + " → " + std::to_string(end.code);
    const bool is_told = end.code == 1 && !find_text(kRightTellings, end.error()).empty();
    // A rival may have been first.
    const bool is_late = cut.has_rival && end.error().find("another run") != std::string::npos;
    expect(is_done(end) || end.code == 128 + cut.signal || is_told || is_late, end.log);
    if (!is_told && dice.chance(0.3)) try_other_inputs(draw, run, story);
    if (dice.chance(0.6)) story += ", " + damage_files(dice, run.file());
  }
  ProgramEnd end = run.run();
  const std::string telling = find_text(kRightTellings, end.error());
  if (end.code == 1 && !telling.empty()) {
    ++report.told[telling];
    story += ", told, --restart";
    end = run.run("--restart");
    if (end.code == 1) {  // what isn't a journal any more isn't ours to delete
      fs::remove(run.file().string() + ".journal");
      end = run.run("--restart");
    }
  }
  // A shard may have no row with an error where the whole has one.
  expect(end.code == code || (draw.shards > 1 && is_done(end)),
         "it ended with " + std::to_string(end.code) + ", not " + std::to_string(code) + ": " +
             end.log);
  const std::string rows = read_rows(run.file(), draw.in_input_order);
  expect(run.run().code == end.code && read_rows(run.file(), draw.in_input_order) == rows,
         "done and run again, it is another output");
}

// The .txt files beside the pictures; they are removed.
std::map<std::string, std::string> take_texts(const fs::path& folder) {
  std::map<std::string, std::string> texts;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "in")) {
    const fs::path& path = entry.path();
    if (path.extension() == ".txt" && path.filename() != "notes.txt") {
      texts[path.string()] = read_file(path);
    }
  }
  for (const auto& [path, text] : texts) fs::remove(path);
  return texts;
}

void run_shards(const BatchDraw& draw, const fs::path& folder, int code, Dice& dice,
                DrawReport& report, std::string& story) {
  const fs::path output = folder / "parts" / ("rows" + draw.suffix);
  fs::create_directories(output.parent_path());
  for (int shard = 0; shard < draw.shards; ++shard) {
    if (draw.shards > 1) story += ", shard " + std::to_string(shard);
    run_parts(draw, BatchRun(draw, folder, output, shard), code, dice, report, story);
  }
  if (draw.shards > 1) {
    const ProgramEnd end = run_call(make_call(folder, "gather", {"gather", output.string()}));
    // Pictures that can't be read and have no row are told by the shards.
    expect(is_done(end), "gather ended with " + std::to_string(end.code) + ": " + end.log);
  }
}

void expect_owned(const fs::path& folder, const BatchDraw& draw) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const std::string beside = draw.suffix == ".parquet" ? "(\\.jsonl(\\.journal|\\.set-aside)?)?"
                                                         : "(\\.journal|\\.set-aside)?";
    expect(
        std::regex_match(name, std::regex("rows(\\.shard-\\d-of-\\d)?\\" + draw.suffix + beside)),
        "a file that nobody owns: " + name);
  }
}

void draw_one(Dice& dice, const fs::path& folder, DrawReport& report) {
  const auto [draw, code] = run_whole(dice, folder, report);
  const auto texts = take_texts(folder);
  std::string story;
  try {
    run_shards(draw, folder, code, dice, report, story);
    const std::string name = "rows" + draw.suffix;
    // Gathered, and gone on with after the end, rows of another order may be sorted.
    expect(read_rows(folder / "parts" / name, draw.in_input_order) ==
               read_rows(folder / "whole" / name, draw.in_input_order),
           "other rows than the whole run's");
    expect(take_texts(folder) == texts, "other .txt files than the whole run's");
    expect_owned(folder / "parts", draw);
    expect(fs::is_empty(folder / "place"), "a file was left in the current folder");
  } catch (const DrawFailed& failure) {
    throw DrawFailed(std::string(failure.what()) + "\n  command: vlm" + words_of(draw) +
                     "\n  shards: " + std::to_string(draw.shards) + "\n  what happened" + story);
  }
}

TEST_CASE("drawn batch runs end with their rows, whatever befalls them", "[batch]") {
  run_draws("batch", draw_one);
}

}  // namespace
}  // namespace vlm
