// Outputs and journals without a model: options that changed, locks, shards, gather, formats.
#include "infer/batch/row_log.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "infer/batch/fingerprint.h"
#include "infer/batch/gather.h"
#include "infer/batch/row_sink.h"
#include "infer/batch/shard.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

RowLogOptions ten_items(const fs::path& output, const OrderedJson& options = {{"--prompt", "a"}}) {
  return {.output = output, .header = {.items = 10, .shard_items = 10, .options = options}};
}

FinishedRow row(std::int64_t ordinal, bool is_error = false) {
  return {ordinal, "row " + std::to_string(ordinal) + (is_error ? " failed\n" : "\n"), is_error};
}

TEST_CASE("a log goes on with its own run only") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.jsonl";
  { RowLog(ten_items(output)).append({row(0), row(4)}); }
  {
    const RowLog log(ten_items(output));
    CHECK(log.rows() == 2);
    CHECK((log.is_done(0) && log.is_done(4) && !log.is_done(1)));
  }
  CHECK_THROWS_WITH(
      RowLog(ten_items(output, {{"--prompt", "b"}, {"--system", "s"}})),
      output.string() +
          ": the rows already there were made with other options: --prompt, --system: "
          "got 'b', wanted 'a' (--allow-changes goes on with the new ones, --restart "
          "begins anew, or choose another --output)");
  CHECK(load_text(output) == "row 0\nrow 4\n");
  RowLogOptions changed = ten_items(output, {{"--prompt", "b"}});
  changed.allow_changes = true;
  { RowLog(changed).append({row(1)}); }
  changed.allow_changes = false;  // the journal knows the new ones now
  CHECK(RowLog(changed).rows() == 3);
  CHECK(load_text(output) == "row 0\nrow 4\nrow 1\n");
  changed.restart = true;
  CHECK(RowLog(changed).rows() == 0);
  CHECK(load_text(output).empty());
}

TEST_CASE("other inputs and formats can't be allowed") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.jsonl";
  { RowLog(ten_items(output, {{"inputs", "1"}})).append({row(0)}); }
  RowLogOptions other = ten_items(output, {{"inputs", "2"}});
  other.allow_changes = true;
  CHECK_THROWS_WITH(RowLog(other), Contains("made with other options: inputs: got '2', wanted '1' "
                                            "(--restart begins anew"));
}

TEST_CASE("one run at a time writes an output, and only to a file it knows") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.jsonl";
  {
    const RowLog log(ten_items(output));
    CHECK_THROWS_WITH(RowLog(ten_items(output)),
                      output.string() +
                          ".journal: another run is writing to this output (wait for "
                          "it, or choose another --output)");
  }
  folder.write("old.jsonl", "{\"id\": \"x\"}\n");
  CHECK_THROWS_WITH(RowLog(ten_items(folder.path() / "old.jsonl")),
                    Contains("old.jsonl: the output holds rows, and no journal tells of which run "
                             "(choose another --output, or --restart to delete them)"));
  CHECK(load_text(folder.path() / "old.jsonl") == "{\"id\": \"x\"}\n");
  CHECK_THROWS_WITH(RowLog(ten_items("/nowhere/out.jsonl")),
                    Contains("/nowhere/out.jsonl.journal: can't write the file: got No such file"));
  CHECK_THROWS_WITH(RowLog(ten_items(folder.path())), Contains("is a folder, not a file"));
  folder.write("new.jsonl.journal", "{\"vlm_journal\":2}\n");
  CHECK_THROWS_WITH(RowLog(ten_items(folder.path() / "new.jsonl")),
                    Contains("new.jsonl.journal: journal of another version: got 2, wanted 1"));
}

TEST_CASE("rows come in any order and are put in order at the end") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.csv";
  RowLogOptions options = ten_items(output);
  options.preamble = "header\n";
  {
    RowLog log(options);
    log.append({row(3), row(1, true)});
    log.append({row(2)});
    log.sort();
    CHECK(load_text(output) == "header\nrow 1 failed\nrow 2\nrow 3\n");
    log.append({row(0)});
  }
  options.retry_errors = true;
  RowLog log(options);
  CHECK(load_text(output) == "header\nrow 2\nrow 3\nrow 0\n");
  CHECK(log.errors() == 0);
  log.append({row(1)});
  log.sort();
  CHECK(load_text(output) == "header\nrow 0\nrow 1\nrow 2\nrow 3\n");
  CHECK(folder.names() == std::vector<std::string>{"out.csv", "out.csv.journal"});
}

// The folder as it is at the moments at which a rewrite may be killed.
TEST_CASE("a rewrite that was cut off is undone or completed, never half done") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out", journal = journal_path(output);
  const std::string before = "row 1 failed\nrow 0\n", after = "row 0\n";
  const auto make = [&](bool retry) {
    RowLogOptions options = ten_items(output);
    options.retry_errors = retry;
    return options;
  };
  { RowLog(make(false)).append({row(1, true), row(0)}); }
  const std::string old_journal = load_text(journal);
  { RowLog(make(true)); }
  const std::string new_journal = load_text(journal);
  REQUIRE(load_text(output) == after);
  const auto set = [&](const std::string& name, const std::string& text) {
    folder.write(name, text);
  };
  SECTION("before the decision") {
    set("out", before);
    set("out.journal", old_journal);
    set("out.new", "row");
    set("out.journal.tmp", new_journal.substr(0, 100));
    CHECK(RowLog(make(false)).errors() == 1);
    CHECK(load_text(output) == before);
  }
  SECTION("behind the decision") {
    set("out", before);
    set("out.journal", old_journal);
    set("out.new", after);
    set("out.journal.new", new_journal);
    CHECK(RowLog(make(false)).rows() == 1);
    CHECK(load_text(output) == after);
  }
  SECTION("between the two renames") {
    set("out", after);
    set("out.journal", old_journal);
    set("out.journal.new", new_journal);
    CHECK(RowLog(make(false)).rows() == 1);
    CHECK(load_text(output) == after);
  }
  CHECK(folder.names() == std::vector<std::string>{"out", "out.journal"});
}

TEST_CASE("rows that the disk lost behind the last sync are done again") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out";
  { RowLog(ten_items(output)).append({row(0), row(1), row(2)}); }
  std::string text = load_text(output);
  text[8] = '\0';  // as a file system leaves blocks that it didn't write
  folder.write("out", text);
  CHECK(RowLog(ten_items(output)).rows() == 1);
  CHECK(load_text(output) == "row 0\n");
  folder.write("out", "");
  CHECK(RowLog(ten_items(output)).rows() == 0);
}

TEST_CASE("rows go to regular files only") {
  CHECK_THROWS_WITH(RowFile("/dev/full"), Contains("/dev/full: not a regular file"));
}

BatchItem item(std::int64_t ordinal) {
  return {.ordinal = ordinal, .id = "a,b", .columns = {{"path", "p.png"}, {"width", 3}}};
}

Answer answer() {
  const Hypothesis hypothesis{.ids = {5, 2}, .logprobs = {-1, -2}, .finish_reason = "stop"};
  return {
      .prompt_tokens = 7, .generations = {{hypothesis, "a \"b\"\nc"}}, .first_token_entropy = 0.5};
}

TEST_CASE("an answer in every format") {
  const RowFormat jsonl(OutputFormat::kJsonl, {"path", "width"});
  CHECK(jsonl.preamble().empty());
  CHECK(
      jsonl.row(item(1), answer()) ==
      R"({"id":"a,b","path":"p.png","width":3,"text":"a \"b\"\nc","mean_logprob":-1.5,"min_logprob":-2.0,"finish_reason":"stop","first_token_entropy":0.5})"
      "\n");
  CHECK(jsonl.row(item(1), {.error = "why"}) ==
        R"({"id":"a,b","path":"p.png","width":3,"error":"why"})"
        "\n");
  const RowFormat csv(OutputFormat::kCsv, {"path", "width"});
  CHECK(csv.preamble() ==
        "id,path,width,text,mean_logprob,min_logprob,finish_reason,first_token_entropy,error\r\n");
  CHECK(csv.row(item(1), answer()) == "\"a,b\",p.png,3,\"a \"\"b\"\"\nc\",-1.5,-2.0,stop,0.5,\r\n");
  CHECK(csv.row(item(1), {.error = "why"}) == "\"a,b\",p.png,3,,,,,,why\r\n");
  const RowFormat openai(OutputFormat::kOpenAi, {});
  CHECK(
      openai.row(item(1), answer()) ==
      R"({"id":"batch_req_1","custom_id":"a,b","response":{"status_code":200,"request_id":"req_1",)"
      R"("body":{"id":"chatcmpl-1","object":"chat.completion","created":0,"model":"vlm","choices":)"
      R"([{"index":0,"message":{"role":"assistant","content":"a \"b\"\nc"},"logprobs":null,)"
      R"("finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2,)"
      R"("total_tokens":9}}},"error":null})"
      "\n");
  CHECK(openai.row(item(1), {.error = "why"}) ==
        R"({"id":"batch_req_1","custom_id":"a,b","response":null,"error":{"code":"item_failed",)"
        R"("message":"why"}})"
        "\n");
  CHECK(parse_output_format("", "x.csv") == OutputFormat::kCsv);
  CHECK(parse_output_format("", "x.txt") == OutputFormat::kJsonl);
  CHECK_THROWS_WITH(parse_output_format("xml", "x"),
                    "--output-format: unknown format: got 'xml', wanted jsonl, csv, openai or txt");
}

TEST_CASE("answers in any order become rows in input or completion order") {
  const RowFormat format(OutputFormat::kCsv, {});
  for (const bool in_input_order : {true, false}) {
    const ScratchFolder folder;
    const fs::path output = folder.path() / "out";
    RowLog log(ten_items(output));
    RowSink sink(log, format, {.in_input_order = in_input_order});
    const auto add = [&](std::int64_t ordinal) {
      sink.add({.ordinal = ordinal, .id = std::to_string(ordinal)}, {.error = "e"});
      sink.flush();
    };
    for (const std::int64_t ordinal : {2, 5, 7}) sink.expect(ordinal);
    add(5);
    CHECK(log.rows() == (in_input_order ? 0 : 1));
    add(2);
    add(7);
    CHECK(load_text(output) == (in_input_order ? "2,,,,,,e\r\n5,,,,,,e\r\n7,,,,,,e\r\n"
                                               : "5,,,,,,e\r\n2,,,,,,e\r\n7,,,,,,e\r\n"));
  }
}

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

TEST_CASE("a model is known by its content, not by its place") {
  const ScratchFolder folder;
  const auto copy = [&](const char* name) {
    fs::copy(fixture("smolvlm_tiny"), folder.path() / name, fs::copy_options::recursive);
    return folder.path() / name;
  };
  const auto digest = [](const fs::path& path) { return identify_folder("m", path)["digest"]; };
  const fs::path first = copy("a"), second = copy("b");
  CHECK(digest(first) == digest(second));
  std::string weights = load_text(second / "model.safetensors");
  weights[weights.size() - 10] ^= 1;
  folder.write("b/model.safetensors", weights);
  CHECK(digest(first) != digest(second));
  const OptionChange change = compare({{"--model", {{"name", "a"}, {"digest", "1"}}}},
                                      {{"--model", {{"name", "b"}, {"digest", "2"}}}});
  CHECK(change.got == "b (digest 2)");
  CHECK(compare({{"--model", {{"name", "a"}, {"digest", "1"}}}},
                {{"--model", {{"name", "b"}, {"digest", "1"}}}})
            .names.empty());
}

}  // namespace
}  // namespace vlm::infer
