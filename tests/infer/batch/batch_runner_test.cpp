// Items answered: rows, errors as rows, going on after an interruption, the score of an evaluation.
#include "infer/batch/batch_runner.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "infer/commands/evaluate.h"
#include "infer/commands/inspect.h"
#include "infer/media/inspect_video.h"
#include "infer/session.h"
#include "tests/infer/sessions.h"
#include "tests/support/grouping_locale.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// A folder with good and broken pictures, and a run over it.
struct Run {
  ScratchFolder folder;
  std::string prompt = "What?";
  BatchOptions options = {.batch_size = 3};
  OutputFormat kind = OutputFormat::kJsonl;
  bool retry_errors = false;

  Run() {
    for (const char* name : {"square", "wide", "tall"}) {
      const std::string file = std::string(name) + ".png";
      const std::string bytes = load_text(fixture("pictures/" + file));
      folder.write("in/" + file, bytes);
      folder.write("in/deep/" + file, bytes);
    }
    folder.write("in/broken.png", "no picture");
    folder.write("in/notes.txt", "not looked at");
  }

  fs::path output() const { return folder.path() / "out.jsonl"; }

  ItemList items() const {
    std::istringstream none;
    return ItemList(open_entries({(folder.path() / "in").string()}, none),
                    {.questions = {{"1", prompt}}, .reserved = reserved_columns()});
  }

  // Number of rows, of those with an error.
  std::pair<std::int64_t, std::int64_t> answer(Session& session) {
    const ItemList list = items();
    const RowFormat format(kind, list.columns());
    RowLogOptions log_options{.output = output(), .retry_errors = retry_errors};
    log_options.header.items = log_options.header.shard_items = list.items();
    log_options.header.options["--prompt"] = prompt;
    log_options.preamble = format.preamble();
    RowLog log(log_options);
    options.generation = session.generation;
    options.generation.max_new_tokens = 4;
    CHECK(run_batch(*session.generator, list, format, log, options));
    return {log.rows(), log.errors()};
  }
};

// The rows without their log-probabilities, whose last digits depend on the batch.
std::vector<std::string> read_answers(const fs::path& output) {
  std::vector<std::string> answers;
  for (OrderedJson& row : read_rows(output)) {
    for (const char* name : {"mean_logprob", "min_logprob", "first_token_entropy"}) row.erase(name);
    answers.push_back(row.dump());
  }
  return answers;
}

TEST_CASE("every picture is a row, a broken one a row with its error") {
  Run run;
  Session session = open_fixture(kTinyModel);
  CHECK(run.answer(session) == std::pair<std::int64_t, std::int64_t>(7, 1));
  const auto rows = read_rows(run.output());
  REQUIRE(rows.size() == 7);
  std::vector<std::string> names;
  for (const OrderedJson& row : rows) {
    CHECK(row["id"] == row["path"]);
    CHECK(row["question"] == "What?");
    names.push_back(fs::path(row["id"].get<std::string>()).filename());
    if (names.back() == "broken.png") {
      CHECK_THAT(row["error"].get<std::string>(), Contains("broken.png"));
      CHECK_FALSE(row.contains("text"));
    } else {
      CHECK(row["finish_reason"] == "length");
      CHECK(row["mean_logprob"].get<double>() < 0);
      CHECK_FALSE(row.contains("error"));
    }
  }
  CHECK(names == std::vector<std::string>{"broken.png", "square.png", "tall.png", "wide.png",
                                          "square.png", "tall.png", "wide.png"});
}

TEST_CASE("rows and journals are the same whatever the locale of the program around") {
  Session session = open_fixture(kTinyModel);
  for (const OutputFormat kind : {OutputFormat::kJsonl, OutputFormat::kCsv}) {
    Run run;
    run.kind = kind;
    run.options.batch_size = 1;  // answers found alone are the same to the last digit
    run.answer(session);
    const std::string rows = load_text(run.output());
    const std::string journal = load_text(journal_path(run.output()));
    fs::remove(run.output());
    fs::remove(journal_path(run.output()));
    const GroupingLocale locale;
    run.answer(session);
    CHECK(load_text(run.output()) == rows);
    CHECK(load_text(journal_path(run.output())) == journal);
  }
}

TEST_CASE("cut off anywhere, output or journal, the same run completes the same rows") {
  Run run;
  Session session = open_fixture(kTinyModel);
  run.answer(session);
  const std::string whole = load_text(run.output());
  const std::string journal = load_text(journal_path(run.output()));
  const auto wanted = read_answers(run.output());
  REQUIRE(wanted.size() == 7);
  std::mt19937 random(3);
  for (int trial = 0; trial < 24; ++trial) {
    const bool cuts_output = trial % 2 == 0;
    const std::size_t cut = random() % ((cuts_output ? whole : journal).size() + 1);
    INFO("cut " << (cuts_output ? "output" : "journal") << " at byte " << cut);
    save_text(run.output(), cuts_output ? whole.substr(0, cut) : whole);
    save_text(journal_path(run.output()), cuts_output ? journal : journal.substr(0, cut));
    if (!cuts_output && cut < journal.find('\n') + 1) {
      CHECK_THROWS_WITH(run.answer(session), Contains("no journal tells of which run"));
      continue;
    }
    run.answer(session);
    CHECK(read_answers(run.output()) == wanted);
  }
}

TEST_CASE("rows with an error are done again, the others kept as they are") {
  Run run;
  Session session = open_fixture(kTinyModel);
  run.answer(session);
  const auto before = read_answers(run.output());
  run.folder.write("in/broken.png", load_text(fixture("pictures/square.png")));
  CHECK(run.answer(session) == std::pair<std::int64_t, std::int64_t>(7, 1));
  run.retry_errors = true;
  CHECK(run.answer(session) == std::pair<std::int64_t, std::int64_t>(7, 0));
  const auto after = read_answers(run.output());
  REQUIRE(after.size() == 7);
  CHECK_THAT(after[0], Contains("broken.png") && Contains("\"finish_reason\":\"length\""));
  CHECK(std::vector(after.begin() + 1, after.end()) ==
        std::vector(before.begin() + 1, before.end()));
}

TEST_CASE("a prompt that the model can't hold is an error of its own rows") {
  Run run;
  run.prompt = std::string(40000, '!');
  Session session = open_fixture(kTinyModel);
  CHECK(run.answer(session) == std::pair<std::int64_t, std::int64_t>(7, 7));
  CHECK_THAT(load_text(run.output()), Contains("the prompt is too long"));
}

TEST_CASE("an answer beside its picture replaces no foreign text unless told to") {
  Run run;
  run.kind = OutputFormat::kTxt;
  run.folder.write("in/wide.txt", "a caption by hand\n");
  Session session = open_fixture(kTinyModel);
  CHECK(run.answer(session) == std::pair<std::int64_t, std::int64_t>(7, 2));
  CHECK(load_text(run.folder.at("in/wide.txt")) == "a caption by hand\n");
  CHECK_THAT(load_text(run.output()),
             Contains("wide.txt: the file is there already, with other text (--overwrite"));
  CHECK(fs::exists(run.folder.at("in/square.txt")));
  CHECK_FALSE(fs::exists(run.folder.at("in/broken.txt")));
  run.retry_errors = true;
  run.options.sink.overwrites_text = true;
  CHECK(run.answer(session) == std::pair<std::int64_t, std::int64_t>(7, 1));
  CHECK(load_text(run.folder.at("in/wide.txt")) != "a caption by hand\n");
  CHECK_THROWS_WITH(write_text_file({.id = "7"}, "x", false),
                    "7: no picture file that a .txt could lie beside (choose another "
                    "--output-format)");
}

TEST_CASE("requests of one item alone are followed or refused") {
  CHECK(apply_overrides({.max_new_tokens = 9}, {{"max_new_tokens", 3}}).max_new_tokens == 3);
  const GenerationOptions greedy =
      apply_overrides({.do_sample = true}, {{"temperature", 0}, {"top_p", 0.5}, {"seed", 7}});
  CHECK_FALSE(greedy.do_sample);
  CHECK(greedy.seed == 7);
  const GenerationOptions drawn =
      apply_overrides({}, {{"n", 2}, {"top_p", 0.5}, {"stop", {"a", "b"}}});
  CHECK(drawn.do_sample);
  CHECK(drawn.top_k == 0);
  CHECK(drawn.num_return_sequences == 2);
  CHECK(drawn.stop_strings == std::vector<std::string>{"a", "b"});
  CHECK_THROWS_WITH(apply_overrides({}, {{"n", 1000}}),
                    "body: num_return_sequences is out of range: got 1000, wanted 1 to 256");
}

TEST_CASE("an evaluation counts the answers that are the data's own") {
  ScratchFolder folder;
  folder.write("metadata.csv", "file_name,text\nsquare.png,zzz\nwide.png,\n");
  for (const char* name : {"square.png", "wide.png"}) {
    fs::copy_file(fixture(std::string("pictures/") + name), folder.path() / name);
  }
  const ItemList list(
      open_evaluation_entries({{.path = folder.path(), .options = {.prompt = "What?"}}}),
      {.reserved = reserved_columns()});
  REQUIRE(list.items() == 2);
  const BatchItem item = list.group(0).at(0).items[0];
  CHECK(item.id == "0");
  CHECK(item.columns["question"] == "What?");
  CHECK(item.columns["answer"] == "zzz");
  Session session = open_fixture(kTinyModel);
  const fs::path output = folder.path() / "rows.jsonl";
  const RowFormat format(OutputFormat::kJsonl, list.columns());
  RowLog log({.output = output, .header = {.items = 2, .shard_items = 2}});
  BatchOptions options;
  options.generation = session.generation;
  options.generation.max_new_tokens = 0;  // every answer is empty
  run_batch(*session.generator, list, format, log, options);
  CHECK(score_rows(output).dump() == R"({"accuracy":0.5,"correct":1,"total":2,"errors":0})");
  CHECK(score_rows(output, {"rouge_l", "vqa_accuracy"}).dump() ==
        R"({"accuracy":0.5,"correct":1,"total":2,"errors":0,"rouge_l":0.0,"vqa_accuracy":0.5})");
}

TEST_CASE("a row that failed counts as wrong in every metric") {
  const ScratchFolder scratch;
  scratch.write("out.jsonl", R"({"text": "SN 42", "answer": "SN 42"})"
                             "\n"
                             R"({"error": "no picture", "answer": "12345678901234567890"})"
                             "\n");
  const OrderedJson scores = score_rows(scratch.at("out.jsonl"), {"exact_match", "cer"});
  CHECK(scores["exact_match"] == 0.5);
  CHECK(scores["cer"] == 0.8);  // 20 of 25 characters
  CHECK(scores["errors"] == 1);
}

TEST_CASE("inspect counts parameters by part") {
  const OrderedJson report = inspect_model(fixture("smolvlm_tiny").string());
  CHECK(report["parameters"]["total"] == 97264);
  CHECK(report["tensors_stored"].contains("F32"));
  CHECK(report["weights_mb"].dump() == R"({"float32":0.4,"bfloat16":0.2,"int8":0.2,"int4":0.2})");
  // Its rows of 48 are no whole groups of 4 bits.
  const OrderedJson wider = report["in_8_bits_with_int4"];
  REQUIRE(wider.size() == 6);
  CHECK(wider[0] == "model.text_model.layers.*.mlp.gate_proj.weight");
  const OrderedJson whole = inspect_model(std::string(VLM_SOURCE_DIR) + "/models/easy-vqa-emoji");
  CHECK(whole["weights_mb"].dump() == R"({"float32":17.4,"bfloat16":8.7,"int8":4.8,"int4":3.8})");
  CHECK_FALSE(whole.contains("in_8_bits_with_int4"));
  const std::string text = to_lines(report);
  CHECK_THAT(text, Contains("model_type                        smolvlm\n"));
  CHECK_THAT(text, Contains("parameters.total                  97264\n"));
  CHECK_THROWS_WITH(inspect_model("/nowhere"), "/nowhere: no such model folder");
}

}  // namespace
}  // namespace vlm::infer
