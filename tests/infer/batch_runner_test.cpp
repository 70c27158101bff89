// Folders of pictures: rows, errors as rows, going on after an interruption.
#include "infer/batch_runner.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "infer/inspect.h"
#include "infer/session.h"
#include "tests/support/folders.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// A folder with good and broken pictures, and the items that a command would make of it.
struct Pictures {
  TemporaryFolder folder;
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
      items.push_back({.id = path.string(), .path = path, .question = "What?", .prompt = "What?"});
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
    if (item.path.filename() == "broken.png") {
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

TEST_CASE("cut off anywhere, the same command completes the same rows") {
  Pictures pictures;
  Session session = open();
  const auto output = pictures.folder.path() / "out.jsonl";
  const BatchOptions options = make_options(session, output);
  run_batch(*session.generator, pictures.items, options);
  const std::string whole = load_text(output);
  std::mt19937 random(3);
  for (int trial = 0; trial < 12; ++trial) {
    const std::size_t cut = random() % (whole.size() + 1);
    INFO("cut at byte " << cut);
    save_text(output, whole.substr(0, cut));
    run_batch(*session.generator, pictures.items, options);
    const std::string again = load_text(output);
    CHECK(std::count(again.begin(), again.end(), '\n') == 7);
    std::size_t at = 0;
    for (const BatchItem& item : pictures.items) {
      at = again.find(Json(item.id).dump(), at);
      CHECK(at != std::string::npos);
    }
    CHECK(again.substr(0, whole.rfind('\n', cut == 0 ? 0 : cut - 1) + 1).size() <= again.size());
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
  pictures.items[2].prompt = std::string(40000, '!');
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

TEST_CASE("inspect counts parameters by part") {
  const std::string text = inspect_model(fixture("smolvlm_tiny").string());
  CHECK_THAT(text, Contains("model_type                        smolvlm"));
  CHECK_THAT(text, Contains("parameters                        97264"));
  CHECK_THAT(text, Contains("tensors stored as F32"));
  CHECK_THROWS_WITH(inspect_model("/nowhere"), "/nowhere: no such model folder");
}

}  // namespace
}  // namespace vlm::infer
