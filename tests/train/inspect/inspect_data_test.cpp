// What inspect-data says of small data sets: tokens with their marks, lengths, and what is wrong.
#include "train/inspect/inspect_data.h"

#include "data/preview.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "train/inspect/survey.h"
#include "train/inspect/token_view.h"
#include "vlm/core/log.h"
#include "vlm/models/registry.h"

namespace vlm::train {
namespace {

TrainConfig config_of(const std::string& file) {
  TrainConfig config;
  config.model_name_or_path = fixture("smolvlm_tiny").string();
  config.output_dir = "unused";
  config.train_files = {file};
  config.shuffle = false;
  return config;
}

std::string row(const std::string& question, const std::string& answer,
                const std::string& more = "") {
  return R"({"query":")" + question + R"(","response":")" + answer + "\"" + more + "}\n";
}

std::string picture(const std::string& name) {
  return R"(,"image":")" + fixture("pictures/" + name + ".png").string() + "\"";
}

TEST_CASE("samples are shown token by token, with what is learned and the pictures' grids") {
  const ScratchFolder scratch;
  const std::string file =
      scratch.write("t.jsonl", row("a b", "12") + row("see", "it\\n", picture("tall")));
  const Inspection found = inspect_data(config_of(file), {.samples = 5, .threads = 1});
  CHECK(found.is_trainable);
  CHECK(found.page.empty());
  CHECK_THAT(found.text, Contains("-- 1. " + file + ":1 · "));
  CHECK_THAT(found.text, Contains("[[ |1|2|<end_of_utterance>]]|↵\n"));
  CHECK_THAT(found.text, Contains("-- 2. " + file + ":2 · ") &&
                             Contains("1 picture or clip, 3 tiles") &&
                             Contains("[picture 1: 2 × 1 tiles and the whole, "));
  CHECK_THAT(found.text, Contains("\n== train_files\n  samples: 2, usable 2\n") &&
                             Contains("pictures and clips: 1, tiles 3, samples of text alone 1"));
  const Inspection one = inspect_data(config_of(file), {.samples = 1, .uses_color = true});
  CHECK_THAT(one.text, Contains("\033[1;32m<end_of_utterance>\033[0m"));
  CHECK(one.text.find("-- 2.") == std::string::npos);
}

TEST_CASE("samples that can't be trained on fail the inspection, each with its place") {
  const ScratchFolder scratch;
  const std::string file =
      scratch.write("t.jsonl", row("a", "b") +
                                   R"({"messages":[{"role":"user","content":"only asks"}]})"
                                   "\n" +
                                   row("c", "d", R"(,"image":"none.png")") + "{\n");
  TrainConfig config = config_of(file);
  Inspection found = inspect_data(config, {.samples = 2, .threads = 2});
  CHECK_FALSE(found.is_trainable);
  CHECK_THAT(found.text, Contains("samples: 4, usable 1") &&
                             Contains("ERROR: 1 sample has nothing to learn\n    " + file +
                                      ":2: sample has nothing to learn") &&
                             Contains("ERROR: 2 samples can't be used; max_bad_samples is 0\n") &&
                             Contains(file + ":3: " + scratch.at("none.png")) &&
                             Contains(file + ":4: not valid JSON"));
  CHECK_THAT(found.text, Contains("-- 2. " + file + ":2: sample has nothing to learn"));
  config.max_bad_samples = 3;
  found = inspect_data(config, {.samples = 0});
  CHECK_FALSE(found.is_trainable);  // nothing to learn always fails
  CHECK_THAT(found.text, Contains("warning: 2 samples can't be used; max_bad_samples is 3"));
}

TEST_CASE("lengths against max_length: an error, cut answers, samples passed over") {
  const ScratchFolder scratch;
  const std::string file =
      scratch.write("t.jsonl", row("a", "b") + row("a", "b b b b b b b b b b"));
  TrainConfig config = config_of(file);
  config.max_length = 20;
  Inspection found = inspect_data(config, {.samples = 2});
  CHECK_FALSE(found.is_trainable);
  CHECK_THAT(found.text, Contains("ERROR: 1 sample can't be used") &&
                             Contains(file + ":2: sample is too long: got "));
  config.length_policy = "truncate";
  found = inspect_data(config, {.samples = 2});
  CHECK(found.is_trainable);
  CHECK_THAT(found.text,
             Contains("warning: 1 answer is cut off by max_length 20\n    " + file + ":2\n") &&
                 Contains("cut to max_length: 1 samples") && Contains(" tokens cut off, ") &&
                 Contains("~~"));
  config.length_policy = "skip";
  found = inspect_data(config, {.samples = 2});
  CHECK(found.is_trainable);
  CHECK_THAT(found.text, Contains("warning: 1 sample is too long and will be passed over"));
}

TEST_CASE("rows longer than the model has positions for are told without max_length") {
  const ScratchFolder scratch;
  std::string words;
  for (int i = 0; i < 600; ++i) words += " b";
  const std::string file = scratch.write("t.jsonl", row("a", "b") + row("a", words));
  TrainConfig config = config_of(file);
  Inspection found = inspect_data(config, {.samples = 0});
  CHECK_FALSE(found.is_trainable);
  CHECK_THAT(found.text, Contains("ERROR: 1 sample can't be used") &&
                             Contains(file + ":2: sample is too long: got ") &&
                             Contains("wanted at most max_position_embeddings = 512"));
  config.length_policy = "truncate";
  found = inspect_data(config, {.samples = 0});
  CHECK_THAT(found.text, Contains("1 answer is cut off by max_position_embeddings 512") &&
                             Contains("cut to max_position_embeddings: 1 samples"));
  config.length_policy = "skip";
  CHECK_THAT(inspect_data(config, {.samples = 0}).text,
             Contains("1 sample is too long and will be passed over"));
}

TEST_CASE("the page holds pictures and tokens, and nothing that could be markup") {
  const ScratchFolder scratch;
  const std::string file =
      scratch.write("t.jsonl", row("<b>&", "x", picture("wide")) + row("q", "y"));
  TrainConfig config = config_of(file);
  config.eval_files = {file};
  const Inspection found = inspect_data(config, {.samples = 2, .makes_page = true});
  CHECK_THAT(found.page,
             Contains("viewBox=\"0 0 2 1\" preserveAspectRatio=\"none\"><path d=\"M1 0V1\"") &&
                 Contains("<figcaption>picture 1: 1 × 2 tiles and the whole<"));
  CHECK_THAT(found.page, Contains("<!DOCTYPE html>") && Contains("src=\"data:image/jpeg;base64,") &&
                             Contains("<h2>train_files</h2>") && Contains("<h2>eval_files</h2>") &&
                             Contains("<span class=\"learned\"") &&
                             Contains("&lt;end_of_utterance&gt;"));
  CHECK(found.page.find("<b>") == std::string::npos);
  CHECK(found.page.find("http") == std::string::npos);
}

TEST_CASE("histograms have ranges of a round width, and quantiles are nearest ranks") {
  const auto rows = make_histogram({17, 18, 25, 90}, 10);
  REQUIRE(rows.size() == 9);
  CHECK(rows[0].from == 10);
  CHECK(rows[0].to == 19);
  CHECK(rows[0].count == 2);
  CHECK(rows[8].from == 90);
  CHECK(rows[8].count == 1);
  CHECK(make_histogram({5, 5}, 10).size() == 1);
  CHECK(make_histogram({}, 10).empty());
  CHECK(make_histogram({0, 1000000}, 12).size() <= 13);
  CHECK(quantile({1, 2, 3, 4}, 0.5) == 2);
  CHECK(quantile({1, 2, 3, 4}, 0.95) == 4);
  CHECK(quantile({}, 0.5) == 0);
}

}  // namespace
}  // namespace vlm::train
