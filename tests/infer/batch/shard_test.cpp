// Parts of a run: which they are, and how they are joined.
#include "infer/batch/shard.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/formats/row_source.h"
#include "infer/batch/gather.h"
#include "infer/batch/row_log.h"
#include "tests/infer/batch/logs.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

FoundShard find(std::map<std::string, std::string> variables) {
  return find_shard([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

TEST_CASE("a shard is told by an option, torchrun or Slurm") {
  const auto check = [](const Shard& shard, std::int64_t index, std::int64_t count) {
    CHECK(shard.index == index);
    CHECK(shard.count == count);
  };
  check(parse_shard("2/8"), 2, 8);
  CHECK_THROWS_WITH(parse_shard("2"),
                    "--shard: not a shard: got '2', wanted i/n with i from 0 to n-1");
  CHECK_THROWS_WITH(parse_shard("8/8"),
                    "--shard: no such part: got 8 of 8 (parts are counted from 0)");
  check(find({}).shard, 0, 1);
  CHECK(find({}).source.empty());
  check(find({{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}})
            .shard,
        1, 4);
  check(find({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}}).shard, 1, 2);
  check(find({{"SLURM_NTASKS", "2"}}).shard, 0, 1);  // a shell inside an allocation
  std::map<std::string, std::string> array = {{"SLURM_ARRAY_TASK_ID", "7"},
                                              {"SLURM_ARRAY_TASK_MIN", "1"},
                                              {"SLURM_ARRAY_TASK_MAX", "9"},
                                              {"SLURM_ARRAY_TASK_STEP", "2"},
                                              {"SLURM_ARRAY_TASK_COUNT", "5"}};
  check(find(array).shard, 3, 5);
  array.insert({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}});
  check(find(array).shard, 7, 10);
  CHECK(find(array).source == "SLURM_ARRAY_TASK_ID, SLURM_PROCID and SLURM_NTASKS");
  array["SLURM_ARRAY_TASK_COUNT"] = "3";
  CHECK_THROWS_WITH(find(array),
                    "SLURM_ARRAY_TASK_ID: the array isn't evenly spaced: got task 7 of 1 to 9 by 2 "
                    "(give each task its --shard i/n)");
  array.erase("SLURM_ARRAY_TASK_MAX");
  CHECK_THROWS_WITH(find(array),
                    Contains("SLURM_ARRAY_TASK_ID is set without SLURM_ARRAY_TASK_MAX"));
  CHECK_THROWS_WITH(find({{"RANK", "x"}, {"WORLD_SIZE", "4"}}),
                    Contains("RANK: not a number: got 'x'"));
  CHECK_THROWS_WITH(find({{"RANK", "4"}, {"WORLD_SIZE", "4"}}),
                    Contains("RANK, WORLD_SIZE: no such part: got 4 of 4"));
  CHECK(shard_output("a/rows.jsonl", {2, 8}) == "a/rows.shard-2-of-8.jsonl");
  CHECK(shard_output("rows", {0, 1}) == "rows");
}

void write_shard(const fs::path& output, Shard shard, std::vector<FinishedRow> rows,
                 const OrderedJson& options = {{"--prompt", "a"}}) {
  RowLog log({.output = shard_output(output, shard),
              .header = {.items = 4, .shard_items = 2, .shard = shard, .options = options},
              .preamble = "header\n"});
  log.append(rows);
}

TEST_CASE("gather joins shards in input order and says what is missing") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.csv";
  CHECK_THROWS_WITH(
      gather_shards({.output = output}),
      output.string() + ": no outputs of shards: wanted files named as out.shard-0-of-2.csv");
  write_shard(output, {0, 2}, {row(2), row(0, true)});
  GatherReport report = gather_shards({.output = output});
  CHECK(report.missing == std::vector<std::string>{"shard 1 of 2: no file"});
  CHECK_FALSE(report.is_written);
  write_shard(output, {1, 2}, {row(3)});
  CHECK(gather_shards({.output = output}).missing ==
        std::vector<std::string>{"shard 1 of 2: 1 of 2 rows"});
  CHECK_FALSE(fs::exists(output));
  report = gather_shards({.output = output, .allows_partial = true});
  CHECK(report.is_written);
  CHECK(load_text(output) == "header\nrow 0 failed\nrow 2\nrow 3\n");
  write_shard(output, {1, 2}, {row(1)});
  report = gather_shards({.output = output});
  CHECK(report.missing.empty());
  CHECK(report.rows == 4);
  CHECK(report.errors == 1);
  CHECK(load_text(output) == "header\nrow 0 failed\nrow 1\nrow 2\nrow 3\n");
  {
    const RowLog running({.output = shard_output(output, {1, 2}),
                          .header = {.items = 4, .shard_items = 2, .options = {{"--prompt", "a"}}},
                          .preamble = "header\n"});
    CHECK(gather_shards({.output = output}).missing ==
          std::vector<std::string>{"shard 1 of 2: still running"});
  }
}

TEST_CASE("gather refuses shards that don't belong together") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.csv";
  write_shard(output, {0, 2}, {row(0), row(2)});
  SECTION("other options") {
    write_shard(output, {1, 2}, {row(1), row(3)}, {{"--prompt", "b"}});
    CHECK_THROWS_WITH(
        gather_shards({.output = output}),
        Contains("shards were made with different options: --prompt: got 'b', wanted 'a'"));
  }
  SECTION("an item twice") {
    write_shard(output, {1, 2}, {row(1), row(2)});
    CHECK_THROWS_WITH(gather_shards({.output = output}),
                      Contains("an item has two rows: got item 2 in shards"));
  }
  SECTION("several runs") {
    write_shard(output, {0, 3}, {row(0), row(3)});
    CHECK_THROWS_WITH(
        gather_shards({.output = output}),
        Contains("shards of several runs: got outputs of 2 and of 3 shards (say --shards)"));
    CHECK(gather_shards({.output = output, .shards = 2}).missing.size() == 1);
  }
  SECTION("no journals") {
    fs::remove(journal_path(shard_output(output, {0, 2})));
    CHECK_THROWS_WITH(gather_shards({.output = output}), Contains("no shard has a journal"));
  }
  SECTION("an output of its own") {
    { RowLog(ten_items(output)).append({row(0)}); }
    CHECK_THROWS_WITH(
        gather_shards({.output = output}),
        Contains("the output belongs to a run without shards (gather into another name)"));
  }
}

FinishedRow json_row(std::int64_t ordinal) {
  return {ordinal, R"({"id":")" + std::to_string(ordinal) + R"(","n":)" +
                       (ordinal == 3 ? "0.5" : std::to_string(ordinal)) + "}\n"};
}

void write_table_rows(const fs::path& output, Shard shard, const std::vector<FinishedRow>& rows,
                      const std::string& prompt = "a") {
  const OrderedJson options = {{"--prompt", prompt}, {"columns", R"({"id":"","n":null})"}};
  RowLog log({.output = rows_path(shard_output(output, shard)),
              .header = {.items = 4, .shard_items = 2, .shard = shard, .options = options}});
  log.append(rows);
}

std::vector<Json> rows_of_table(const fs::path& path) {
  const auto source = data::open_rows(path);
  std::vector<Json> rows;
  for (std::int64_t i = 0; i < source->size(); ++i) rows.push_back(source->at(i).columns);
  return rows;
}

TEST_CASE("gather joins the rows of shards in a Parquet file") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.parquet";
  CHECK_THROWS_WITH(
      gather_shards({.output = output}),
      output.string() + ": no outputs of shards: wanted files named as out.shard-0-of-2.parquet");
  write_table_rows(output, {0, 2}, {json_row(2), json_row(0)});
  CHECK(gather_shards({.output = output}).missing ==
        std::vector<std::string>{"shard 1 of 2: no file"});
  write_table_rows(output, {1, 2}, {json_row(3)});
  GatherReport report = gather_shards({.output = output, .allows_partial = true});
  CHECK(report.is_written);
  CHECK(rows_of_table(output) == std::vector<Json>{{{"id", "0"}, {"n", 0}},
                                                   {{"id", "2"}, {"n", 2}},
                                                   {{"id", "3"}, {"n", 0.5}}});
  write_table_rows(output, {1, 2}, {json_row(1)});
  report = gather_shards({.output = output});
  CHECK(report.missing.empty());
  REQUIRE(rows_of_table(output).size() == 4);
  CHECK(rows_of_table(output)[1] == Json({{"id", "1"}, {"n", 1}}));
  // The same again replaces it; shards of other options, and what isn't a gathered table, don't.
  CHECK(gather_shards({.output = output}).is_written);
  fs::copy_file(fixture("tables/chartqa.parquet"), output, fs::copy_options::overwrite_existing);
  const std::string foreign = load_text(output);
  CHECK_THROWS_WITH(gather_shards({.output = output}),
                    output.string() +
                        ": the output is there already, and is of another run (--overwrite "
                        "replaces it, or gather into another name)");
  CHECK(load_text(output) == foreign);
  CHECK(gather_shards({.output = output, .overwrites = true}).is_written);
  CHECK(rows_of_table(output).size() == 4);
}

TEST_CASE("no Parquet file of a shard, or of a run without shards, is gathered over") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.parquet";
  write_table_rows(output, {0, 1}, {json_row(0), json_row(1)});
  write_table_rows(output, {0, 2}, {json_row(0), json_row(2)});
  write_table_rows(output, {1, 2}, {json_row(1), json_row(3)});
  CHECK_THROWS_WITH(
      gather_shards({.output = output}),
      Contains("the output belongs to a run without shards (gather into another name)"));
  fs::remove(folder.at("out.parquet.jsonl.journal"));
  fs::create_symlink("out.shard-1-of-2.parquet.jsonl", output);
  CHECK_THROWS_WITH(gather_shards({.output = output}),
                    Contains("the output would replace a file of a shard"));
}

}  // namespace
}  // namespace vlm::infer
