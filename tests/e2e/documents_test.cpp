// Answers with special tokens and in the formats of documents, from the commands that answer.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"
#include "vlm/core/text_file.h"

namespace vlm {
namespace {

const std::string kModel =
    " --model tests/fixtures/granite_tiny --device cpu --threads 1 --max-new-tokens 24 ";
const std::string kPicture = " tests/fixtures/pictures/tall.png ";
const std::string kQuestion = " 'Describe the image.' ";
const std::string kAsk = "generate" + kModel + "--image" + kPicture + "--prompt" + kQuestion;
const std::string kCaption = "caption" + kPicture + "--prompt" + kQuestion + kModel;

Json first_row(const std::filesystem::path& path) {
  const std::string text = load_text(path);
  return Json::parse(text.substr(0, text.find('\n')));
}

TEST_CASE("commands keep special tokens when they are asked to") {
  const ScratchFolder folder;
  const std::string kept = run_vlm(kAsk + "--keep-special-tokens").out;
  CHECK_THAT(kept, Contains("<fcel>"));
  CHECK_THAT(run_vlm(kAsk).out, !Contains("<fcel>"));
  CHECK(run_vlm(kAsk + "--answer-format doctags").out == kept);
  const Json printed = Json::parse(run_vlm(kAsk + "--keep-special-tokens --json").out);
  CHECK(printed["text"].get<std::string>() + "\n" == kept);
  const std::string output = (folder.path() / "rows.jsonl").string();
  for (const std::string& command :
       {kCaption, "vqa" + kPicture + "--question" + kQuestion + kModel}) {
    INFO(command);
    const ProgramResult run =
        run_vlm(command + "--restart --keep-special-tokens --output " + output);
    REQUIRE(run.code == 0);
    CHECK(first_row(output)["text"].get<std::string>() + "\n" == kept);
  }
}

TEST_CASE("a page as Markdown and HTML, printed and in rows") {
  const ScratchFolder folder;
  const ProgramResult html = run_vlm(kAsk + "--answer-format html");
  CHECK(html.code == 0);
  CHECK_THAT(html.out, Contains("<!DOCTYPE html>") && Contains("</html>\n"));
  const Json printed = Json::parse(run_vlm(kAsk + "--answer-format markdown --json").out);
  CHECK_THAT(printed["doctags"].get<std::string>(), Contains("<fcel>"));
  const std::string output = " --output " + (folder.path() / "rows.jsonl").string();
  REQUIRE(run_vlm(kCaption + "--answer-format markdown" + output).code == 0);
  const Json row = first_row(folder.path() / "rows.jsonl");
  CHECK(row["text"] == printed["text"]);
  CHECK(row["doctags"] == printed["doctags"]);
  // Another format would give other rows.
  const ProgramResult other = run_vlm(kCaption + "--answer-format html" + output);
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Contains("--answer-format"));
  const ProgramResult choices = run_vlm(kAsk + "--answer-format html --choices a,b");
  CHECK(choices.code == 2);
  CHECK_THAT(choices.err, Contains("--answer-format") && Contains("--choices"));
}

}  // namespace
}  // namespace vlm
