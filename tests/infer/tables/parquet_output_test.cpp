// Rows → a Parquet file, read again by the reader of data sets.
#include "infer/tables/parquet_output.h"

#include <signal.h>
#include <sys/resource.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "data/formats/row_source.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

const OrderedJson kColumns = {{"id", ""}, {"label", nullptr}, {"score", 0.0}, {"error", ""}};

ParquetOutput table_at(const std::string& path, const OrderedJson& columns = kColumns,
                       const data::TableNotes& notes = {{"vlm.run", "1"}}) {
  return ParquetOutput({.output = path, .columns = columns, .notes = notes});
}

void write(const ParquetOutput& table, const std::string& lines) {
  table.write([&](const auto& use) {
    std::istringstream in(lines);
    for (std::string line; std::getline(in, line);) use(line + "\n");
  });
}

std::vector<Json> rows_of(const std::string& path) {
  const auto source = data::open_rows(path);
  std::vector<Json> rows;
  for (std::int64_t i = 0; i < source->size(); ++i) rows.push_back(source->at(i).columns);
  return rows;
}

TEST_CASE("rows become a table in their order, with null for what a row lacks") {
  const ScratchFolder folder;
  const std::string path = folder.at("x.parquet");
  write(table_at(path), R"({"id": "a", "label": ["x", "y"], "score": -0.25, "seen": {"n": 3}}
{"id": "b", "label": "ü \" \n", "error": "why"}
{"id": "c", "seen": {"n": null, "t": [[1.5], []]}, "flag": true}
)");
  const std::vector<Json> rows = rows_of(path);
  REQUIRE(rows.size() == 3);
  const Json none;
  CHECK(rows[0] == Json({{"id", "a"},
                         {"label", {"x", "y"}},
                         {"score", -0.25},
                         {"error", none},
                         {"seen", {{"n", 3}, {"t", none}}},
                         {"flag", none}}));
  CHECK(rows[1]["label"] == Json({"ü \" \n"}));
  CHECK(rows[1]["seen"].is_null());
  CHECK(rows[1]["error"] == "why");
  CHECK(rows[2]["seen"] == Json({{"n", none}, {"t", {{1.5}, Json::array()}}}));
  CHECK(rows[2]["flag"] == true);
  CHECK(rows[2]["score"].is_null());
  CHECK(folder.names() == std::vector<std::string>{"x.parquet"});
}

TEST_CASE("a table without rows has its columns, and one of many rows is read in groups") {
  const ScratchFolder folder;
  write(table_at(folder.at("none.parquet")), "");
  CHECK(data::open_rows(folder.at("none.parquet"))->size() == 0);
  CHECK(fs::file_size(folder.at("none.parquet")) > 100);

  constexpr int kRows = 250'000;
  table_at(folder.at("many.parquet")).write([&](const auto& use) {
    for (int i = 0; i < kRows; ++i) use(R"({"id": ")" + std::to_string(i) + R"("})");
  });
  const auto source = data::open_rows(folder.at("many.parquet"));
  REQUIRE(source->size() == kRows);
  CHECK(source->blocks().size() == 3);
  for (const int i : {0, 99'999, 100'000, kRows - 1}) {
    CHECK(source->at(i).columns["id"] == std::to_string(i));
  }
}

TEST_CASE("only a table of the same run is replaced") {
  const ScratchFolder folder;
  const std::string path = folder.at("x.parquet");
  const std::string refusal =
      path + ": the output is there already, and is of another run (go elsewhere)";
  CHECK_NOTHROW(table_at(path).check_replaced("vlm.run", "go elsewhere"));
  write(table_at(path), R"({"id": "a"})");
  CHECK_NOTHROW(table_at(path).check_replaced("vlm.run", "go elsewhere"));
  CHECK_THROWS_WITH(
      table_at(path, kColumns, {{"vlm.run", "2"}}).check_replaced("vlm.run", "go elsewhere"),
      refusal);
  CHECK_THROWS_WITH(table_at(path).check_replaced("", "go elsewhere"), refusal);
  for (const std::string other : {"no table", "PAR1 cut off"}) {
    folder.write("x.parquet", other);
    CHECK_THROWS_WITH(table_at(path).check_replaced("vlm.run", "go elsewhere"), refusal);
  }
  fs::copy_file(fixture("tables/chartqa.parquet"), path, fs::copy_options::overwrite_existing);
  CHECK_THROWS_WITH(table_at(path).check_replaced("vlm.run", "go elsewhere"), refusal);
  // Other options of the same run, not other inputs, leave the run's note as it is.
  const auto note = [](const OrderedJson& options) { return table_notes(options).at(kRunNote); };
  const OrderedJson run = {{"command", "vqa"}, {"inputs", "1"}, {"--seed", 1}, {"columns", "{}"}};
  OrderedJson other = run;
  other["--seed"] = 2;
  CHECK(note(run) == note(other));
  CHECK(table_notes(run).at(kOptionsNote) != table_notes(other).at(kOptionsNote));
  other["inputs"] = "2";
  CHECK(note(run) != note(other));
}

TEST_CASE("what ends the writing leaves the table that was there, and nothing beside it") {
  const ScratchFolder folder;
  const std::string path = folder.at("x.parquet");
  write(table_at(path), R"({"id": "before"})");
  const auto check_kept = [&] {
    CHECK(rows_of(path).at(0)["id"] == "before");
    CHECK(folder.names() == std::vector<std::string>{"x.parquet"});
  };
  SECTION("a stop request") {
    int seen = 0;
    CHECK_THROWS_AS(table_at(path).write([&](const auto& use) {
      for (int i = 0; i < 3; ++i) {
        if (++seen == 5) request_stop(SIGINT);
        use(R"({"id": "a"})");
      }
    }),
                    Interrupted);
    request_stop(0);
    CHECK(seen == 5);
    check_kept();
  }
  SECTION("rows that aren't JSON") {
    CHECK_THROWS_WITH(write(table_at(path), "{\"id\": \n"), Contains(path + ".jsonl"));
    check_kept();
  }
  SECTION("a full disk") {
    struct rlimit before = {};
    ::getrlimit(RLIMIT_FSIZE, &before);
    const struct rlimit small = {.rlim_cur = 1000, .rlim_max = before.rlim_max};
    const auto handler = ::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
    std::string error;
    try {
      table_at(path).write([&](const auto& use) {
        for (int i = 0; i < 5000; ++i) use(R"({"id": ")" + std::to_string(i * 7919) + R"("})");
      });
    } catch (const Error& caught) {
      error = caught.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &before);
    ::signal(SIGXFSZ, handler);
    CHECK_THAT(error,
               Contains(path + ": can't write the table: got ") && Contains("File too large") &&
                   Contains("(the rows are in " + path + ".jsonl; the same command goes on)"));
    check_kept();
  }
}

}  // namespace
}  // namespace vlm::infer
