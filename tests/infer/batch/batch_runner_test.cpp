// Folders of pictures: rows, errors as rows, going on after an interruption.
#include "infer/batch/batch_runner.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "infer/evaluate.h"
#include "infer/inspect.h"
#include "infer/session.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// A folder with good and broken pictures, and the items that a command would make of it.
struct Pictures {
  ScratchFolder folder;
  std::vector<BatchItem> items;

  Pictures() {
    fs::create_directories(folder.path() / "in/deep");
    for (const char* name : {"square", "wide", "tall"}) {
      const std::string file = std::string(name) + ".png";
      fs::copy_file(fixture("pictures/" + file), folder.path() / "in" / file);
      fs::copy_file(fixture("pictures/" + file), folder.path() / "in/deep" / file);
    }
    save_text(folder.path() / "in/broken.png", "no picture");
    save_text(folder.path() / "in/notes.txt", "not looked at");
    for (const auto& path : list_pictures({(folder.path() / "in").string()})) {
      items.push_back({.id = path.string(),
                       .columns = {{"question", "What?"}},
                       .messages = make_conversation("What?", 1, ""),
                       .images = {path}});
    }
  }
};

BatchOptions make_options(const Session& session, const fs::path& output) {
  BatchOptions options{.output = output, .batch_size = 3};
  options.generation = session.generation;
  options.generation.max_new_tokens = 4;
  return options;
}

Session open() {
  return open_session({.model = fixture("smolvlm_tiny").string()}, {.device = "cpu"});
}

TEST_CASE("every picture is a row, a broken one a row with its error") {
  Pictures pictures;
  REQUIRE(pictures.items.size() == 7);
  Session session = open();
  const auto output = pictures.folder.path() / "out.jsonl";
  const BatchResult result =
      run_batch(*session.generator, pictures.items, make_options(session, output));
  CHECK(result.rows == 7);
  CHECK(result.errors == 1);
  std::ifstream in(output);
  std::string line;
  for (const BatchItem& item : pictures.items) {
    REQUIRE(std::getline(in, line));
    const OrderedJson row = OrderedJson::parse(line);
    CHECK(row["id"] == item.id);
    CHECK(row["question"] == "What?");
    if (item.images[0].filename() == "broken.png") {
      CHECK_THAT(row["error"].get<std::string>(), Contains("broken.png"));
      CHECK_FALSE(row.contains("text"));
    } else {
      CHECK(row["finish_reason"] == "length");
      CHECK(row["mean_logprob"].get<double>() < 0);
      CHECK_FALSE(row.contains("error"));
    }
  }
  CHECK_FALSE(std::getline(in, line));
}

// The rows without their log-probabilities, whose last digits depend on the batch.
std::vector<std::string> read_answers(const fs::path& output) {
  std::vector<std::string> rows;
  std::ifstream in(output);
  for (std::string line; std::getline(in, line);) {
    OrderedJson row = OrderedJson::parse(line);
    row.erase("mean_logprob");
    rows.push_back(row.dump());
  }
  return rows;
}

TEST_CASE("cut off anywhere, the same command completes the same rows") {
  Pictures pictures;
  Session session = open();
  const auto output = pictures.folder.path() / "out.jsonl";
  const BatchOptions options = make_options(session, output);
  run_batch(*session.generator, pictures.items, options);
  const std::string whole = load_text(output);
  const auto wanted = read_answers(output);
  REQUIRE(wanted.size() == 7);
  std::mt19937 random(3);
  for (int trial = 0; trial < 12; ++trial) {
    const std::size_t cut = random() % (whole.size() + 1);
    INFO("cut at byte " << cut);
    save_text(output, whole.substr(0, cut));
    run_batch(*session.generator, pictures.items, options);
    CHECK(read_answers(output) == wanted);
    const std::size_t kept = cut == 0 ? 0 : whole.rfind('\n', cut - 1) + 1;
    CHECK(load_text(output).substr(0, kept) == whole.substr(0, kept));
  }
}

TEST_CASE("rows of another run are not touched") {
  Pictures pictures;
  Session session = open();
  const auto output = pictures.folder.path() / "out.jsonl";
  save_text(output, "{\"id\": \"elsewhere.png\", \"text\": \"x\"}\n");
  CHECK_THROWS_WITH(
      run_batch(*session.generator, pictures.items, make_options(session, output)),
      Contains("out.jsonl:1: the output holds rows of another run: got elsewhere.png"));
  CHECK(load_text(output) == "{\"id\": \"elsewhere.png\", \"text\": \"x\"}\n");
  save_text(output, "no row\n");
  CHECK_THROWS_WITH(run_batch(*session.generator, pictures.items, make_options(session, output)),
                    Contains("got no row"));
  BatchOptions nowhere = make_options(session, "/nowhere/out.jsonl");
  CHECK_THROWS_WITH(run_batch(*session.generator, pictures.items, nowhere),
                    Contains("/nowhere/out.jsonl: can't write the file"));
}

TEST_CASE("a prompt that the model can't hold is an error of its own row") {
  Pictures pictures;
  Session session = open();
  pictures.items[2].messages = make_conversation(std::string(40000, '!'), 1, "");
  const auto output = pictures.folder.path() / "out.jsonl";
  const BatchResult result =
      run_batch(*session.generator, pictures.items, make_options(session, output));
  CHECK(result.rows == 7);
  CHECK(result.errors == 2);
  CHECK_THAT(load_text(output), Contains("the prompt is too long"));
}

TEST_CASE("pictures are listed recursively, sorted, each once") {
  Pictures pictures;
  const fs::path in = pictures.folder.path() / "in";
  const auto found = list_pictures({(in / "wide.png").string(), in.string()});
  REQUIRE(found.size() == 7);
  CHECK(found[0] == in / "wide.png");
  CHECK(found[1] == in / "broken.png");
  CHECK(found[2] == in / "deep/square.png");
  CHECK_THROWS_WITH(list_pictures({"/nowhere"}), "/nowhere: no such file or folder");
  fs::create_directories(in / "empty");
  CHECK_THROWS_WITH(list_pictures({(in / "empty").string()}),
                    Contains("empty: no pictures in the folder"));
}

TEST_CASE("an evaluation counts the answers that are the data's own") {
  ScratchFolder folder;
  save_text(folder.path() / "metadata.csv", "file_name,text\nsquare.png,zzz\nwide.png,\n");
  for (const char* name : {"square.png", "wide.png"}) {
    fs::copy_file(fixture(std::string("pictures/") + name), folder.path() / name);
  }
  const auto items = make_evaluation_items(*data::load_dataset(folder.path(), {.prompt = "What?"}));
  REQUIRE(items.size() == 2);
  CHECK(items[0].columns[1] == std::pair<std::string, std::string>("question", "What?"));
  CHECK(items[0].columns[2] == std::pair<std::string, std::string>("answer", "zzz"));
  Session session = open();
  const auto output = folder.path() / "rows.jsonl";
  BatchOptions options = make_options(session, output);
  options.generation.max_new_tokens = 0;  // every answer is empty
  run_batch(*session.generator, items, options);
  CHECK(score_rows(output).dump() == R"({"accuracy":0.5,"correct":1,"total":2,"errors":0})");
  CHECK(is_same_answer(" Yes\n", "yes"));
  CHECK_FALSE(is_same_answer("yes", "yes sir"));
}

TEST_CASE("inspect counts parameters by part") {
  const std::string text = inspect_model(fixture("smolvlm_tiny").string());
  CHECK_THAT(text, Contains("model_type                        smolvlm"));
  CHECK_THAT(text, Contains("parameters                        97264"));
  CHECK_THAT(text, Contains("tensors stored as F32"));
  CHECK_THROWS_WITH(inspect_model("/nowhere"), "/nowhere: no such model folder");
}

}  // namespace
}  // namespace vlm::infer
