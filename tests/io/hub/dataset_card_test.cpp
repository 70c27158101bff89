// Which files belong to a config and split, and pulling them.
#include "vlm/io/hub/dataset_card.h"

#include "tests/io/hub/pull_fixture.h"
#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/io/hub/hub_pull.h"

namespace vlm {
namespace {

const std::string kCard = R"(---
license: mit
configs:
- config_name: easy
  default: true
  data_files:
  - split: train
    path: easy/train-*
  - split: test
    path: ["easy/test-*"]
- config_name: hard
  data_files: "hard/**/*.parquet"
---
# A data set
)";

const Names kListed = {"README.md",
                       "easy/train-00000-of-00002.parquet",
                       "easy/train-00001-of-00002.parquet",
                       "easy/test-00000-of-00001.parquet",
                       "hard/a/b.parquet",
                       "hard/c.parquet"};

std::string card_error(const std::string& card, const Names& listed, const DatasetChoice& choice) {
  try {
    choose_data_files(card, listed, choice, "org/set");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("a card says which files a config and a split have") {
  const auto choose = [](const DatasetChoice& choice) {
    return choose_data_files(kCard, kListed, choice, "org/set");
  };
  CHECK(choose({}) == Names{kListed[1], kListed[2]});
  CHECK(choose({.split = "test"}) == Names{kListed[3]});
  CHECK(choose({.split = "all"}) == Names{kListed[3], kListed[1], kListed[2]});
  CHECK(choose({.config = "hard"}) == Names{kListed[4], kListed[5]});
  CHECK(choose({.files = "hard/*.parquet"}) == Names{kListed[5]});
  CHECK(card_error(kCard, kListed, {.config = "odd"}) ==
        "org/set: no config 'odd' in the data set: wanted config_name, one of easy, hard");
  CHECK(card_error(kCard, kListed, {.split = "dev"}) ==
        "org/set: no split 'dev' in the data set: wanted split, one of test, train, or all");
  CHECK_THAT(card_error("---\na: [\n---\n", kListed, {}), Contains("not valid YAML"));
  CHECK_THAT(card_error(kCard, kListed, {.files = "x"}), Contains("no such file"));
}

TEST_CASE("without a header the names of the files tell") {
  const auto choose = [](const Names& listed, const DatasetChoice& choice = {}) {
    return choose_data_files("# no header", listed, choice, "org/set");
  };
  CHECK(choose({"data/train-00000-of-00001-a1.parquet", "data/odd-00000-of-00001.parquet"}) ==
        Names{"data/train-00000-of-00001-a1.parquet"});
  CHECK(choose({"my_train_file.jsonl", "dev.jsonl", "notes.jsonl"}) ==
        Names{"my_train_file.jsonl"});
  CHECK(choose({"my_train_file.jsonl", "dev.jsonl"}, {.split = "validation"}) ==
        Names{"dev.jsonl"});
  CHECK(choose({"a.csv", "b.csv", "c.txt"}) == Names{"a.csv", "b.csv"});
  CHECK(choose({"a.jsonl", "a.parquet"}) == Names{"a.parquet"});
  CHECK(choose({"README.md", "train/metadata.jsonl", "train/1.png", "test/metadata.jsonl"}) ==
        Names{"train/1.png", "train/metadata.jsonl"});
  CHECK_THAT(card_error("", {"README.md", "model.bin"}, {}), Contains("no data files"));
  CHECK_THAT(card_error("", {"a.csv"}, {.config = "x"}), Contains("its card names none"));
}

TEST_CASE("a config whose files are gone isn't replaced by other files") {
  const std::string card =
      "---\nconfigs:\n- config_name: old\n  data_files: old/*.csv\n- config_name: new\n"
      "  data_files: new/*.csv\n---\n";
  CHECK_THAT(card_error(card, {"README.md", "new/train.csv"}, {.config = "old"}),
             Contains("no files of config 'old' in the repository") &&
                 Contains("wanted files that match old/*.csv"));
}

TEST_CASE("patterns of paths") {
  CHECK(matches_glob("a/b.parquet", "a/*.parquet"));
  CHECK_FALSE(matches_glob("a/b/c.parquet", "a/*.parquet"));
  CHECK(matches_glob("a/b/c.parquet", "a/**/*.parquet"));
  CHECK(matches_glob("a/c.parquet", "a/**/*.parquet"));
  CHECK(matches_glob("a/c.parquet", "**"));
  CHECK(matches_glob("c1.csv", "c[0-9].csv"));
  CHECK_FALSE(matches_glob(".c.csv", "*.csv"));
  CHECK_FALSE(matches_glob("a", "a/*"));
}

TEST_CASE("a data set is pulled once, and found offline") {
  PullFixture fixture;  // of the hub
  HubServer& server = fixture.server;
  server.is_dataset = true;
  server.files.clear();
  server.files["README.md"] = {.content = kCard};
  for (const std::string& name : kListed) {
    if (name != "README.md") server.files[name] = {.content = "rows of " + name, .is_lfs = true};
  }
  auto name = parse_hub_name(server.model);
  REQUIRE(name);
  name->type = HubType::kDataset;
  const HubDataset pulled = pull_dataset(*name, {}, fixture.options());
  CHECK(pulled.files == Names{kListed[1], kListed[2]});
  CHECK(load_text(pulled.folder / kListed[1]) == "rows of " + kListed[1]);
  CHECK(load_text(pulled.folder / "README.md") == kCard);
  CHECK_FALSE(std::filesystem::exists(pulled.folder / kListed[3]));
  CHECK_THAT(pulled.folder.string(), Contains("datasets--"));
  server.forget_requests();
  CHECK(pull_dataset(*name, {}, fixture.options()).files == pulled.files);
  CHECK(server.count("GET", "/cdn/") == 0);

  HubOptions offline = fixture.options();
  offline.is_offline = true;
  server.forget_requests();
  CHECK(find_or_pull_dataset(*name, {}, offline).files == pulled.files);
  CHECK(server.requests().empty());
  CHECK_THROWS_WITH(find_or_pull_dataset(*name, {.split = "test"}, offline),
                    Contains("no split 'test'") && Contains("HF_HUB_OFFLINE is set"));
  CHECK_THROWS_WITH(pull_dataset(*name, {}, offline), Contains("nothing is pulled offline"));
  std::filesystem::remove(pulled.folder / kListed[2]);
  CHECK_THROWS_WITH(find_or_pull_dataset(*name, {}, offline),
                    Contains("not whole") && Contains("no " + kListed[2]));
}

TEST_CASE("a hub that gives no answer: the cache with a warning, without one its error") {
  PullFixture fixture;
  HubServer& server = fixture.server;
  server.is_dataset = true;
  server.files = {{"train.csv", {.content = "question\nRed?\n"}},
                  {"test.csv", {.content = "question\nBlue?\n"}}};
  auto name = parse_hub_name(server.model);
  REQUIRE(name);
  name->type = HubType::kDataset;
  const HubDataset pulled = find_or_pull_dataset(*name, {}, fixture.options());
  server.hook = [](const HubRequest&) { return HubReply{.status = 503}; };
  fixture.told.clear();
  const HubDataset cached = find_or_pull_dataset(*name, {}, fixture.options());
  CHECK(cached.files == pulled.files);
  CHECK(cached.folder == pulled.folder);
  REQUIRE_FALSE(fixture.told.empty());
  CHECK_THAT(fixture.told.back(), Contains("org/tiny@main: no whole answer from http://127") &&
                                      Contains("HTTP 503") &&
                                      Contains("; the data set is read from the cache: "));
  CHECK_THROWS_WITH(pull_dataset(*name, {}, fixture.options()), Contains("no whole answer from"));
  // What was never pulled isn't made up from what was.
  CHECK_THROWS_WITH(find_or_pull_dataset(*name, {.split = "test"}, fixture.options()),
                    Contains("no whole answer from") && !Contains("HF_HUB_OFFLINE"));
  // What the hub refuses is no lack of an answer.
  server.hook = {};
  name->revision = "v9";
  CHECK_THROWS_WITH(find_or_pull_dataset(*name, {}, fixture.options()),
                    Contains("no revision 'v9' on the hub"));
}

}  // namespace
}  // namespace vlm
