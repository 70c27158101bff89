// Outputs and journals without a model: options that changed, locks, shards, gather, formats.
#include "infer/batch/row_log.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "infer/batch/fingerprint.h"
#include "infer/batch/row_sink.h"
#include "infer/batch/used_files.h"
#include "tests/infer/batch/logs.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

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
  { RowLog(changed).append({row(1)}); }  // goes on
  changed.allow_changes = false;         // the journal knows the new ones now
  CHECK(RowLog(changed).rows() == 3);
  CHECK(load_text(output) == "row 0\nrow 4\nrow 1\n");
  changed.restart = true;
  {
    RowLog log(changed);
    CHECK(log.rows() == 0);
    CHECK(load_text(output) == "row 0\nrow 4\nrow 1\n");  // looking changes nothing
    log.begin();
  }
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
    RowLog log(ten_items(output));
    log.begin();
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
                    "/nowhere/out.jsonl: can't write in the output's folder: got No such file or "
                    "directory");
  CHECK_THROWS_WITH(RowLog(ten_items(folder.path())), Contains("is a folder, not a file"));
  folder.write("new.jsonl.journal", "{\"vlm_journal\":1}\n");
  CHECK_THROWS_WITH(RowLog(ten_items(folder.path() / "new.jsonl")),
                    Contains("new.jsonl.journal: journal of another version: got 1, wanted 2 "
                             "(choose another --output, or --restart to begin anew)"));
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
  log.begin();
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
  { RowLog(make(true)).begin(); }
  const std::string new_journal = load_text(journal);
  REQUIRE(load_text(output) == after);
  const auto set = [&](const std::string& name, const std::string& text) {
    folder.write(name, text);
  };
  SECTION("before the decision") {
    set("out", before);
    set("out.journal", old_journal);
    set("out.journal.rows", "row");
    set("out.journal.tmp", new_journal.substr(0, 100));
    CHECK(RowLog(make(false)).errors() == 1);
    CHECK(load_text(output) == before);
  }
  SECTION("behind the decision") {
    set("out", before);
    set("out.journal", old_journal);
    set("out.journal.rows", after);
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
  {
    RowLog log(ten_items(output));
    CHECK((log.is_done(0) && !log.is_done(1) && log.is_done(2)));
    log.begin();
  }
  CHECK(load_text(output) == "row 0\nrow 2\n");
  folder.write("out", "");
  CHECK(RowLog(ten_items(output)).rows() == 0);
}

TEST_CASE("rows go to regular files only, and nothing else is touched") {
  const ScratchFolder folder;
  CHECK_THROWS_WITH(RowFile("/dev/full"), Contains("/dev/full: not a regular file"));
  for (const char* name : {"/dev/null", "/dev/full"}) {
    CHECK_THROWS_WITH(RowLog(ten_items(name)),
                      std::string(name) +
                          ": not a regular file (rows go to a file that a run can "
                          "go on with)");
    CHECK_FALSE(fs::exists(std::string(name) + ".journal"));
  }
  REQUIRE(::mkfifo((folder.path() / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(RowLog(ten_items(folder.path() / "pipe")), Contains("not a regular file"));
  fs::create_symlink("round", folder.path() / "round");
  CHECK_THROWS_WITH(RowLog(ten_items(folder.path() / "round")),
                    Contains("round: too many symbolic links"));
  folder.write("notes.journal", "what I did today\n");
  RowLogOptions options = ten_items(folder.path() / "notes");
  for (const bool restart : {false, true}) {
    options.restart = restart;
    CHECK_THROWS_WITH(RowLog(options), Contains("notes.journal: not a journal, but its name is one "
                                                "of this output (choose another --output)"));
  }
  { RowLog(ten_items(folder.path() / "out")).append({row(0)}); }
  options.output = folder.path() / "out.journal";
  CHECK_THROWS_WITH(RowLog(options), Contains("out.journal: the file is a run's journal"));
  CHECK(folder.names() ==
        std::vector<std::string>{"notes.journal", "out", "out.journal", "pipe", "round"});
}

TEST_CASE("looking at an output makes nothing, and beginning is what makes it") {
  const ScratchFolder folder;
  {
    RowLog log(ten_items(folder.path() / "out"));
    CHECK(folder.names().empty());
    log.begin();
    CHECK(folder.names() == std::vector<std::string>{"out", "out.journal"});
    // Both looked before either began.
    RowLogOptions options = ten_items(folder.path() / "two");
    RowLog first(options), second(options);
    first.begin();
    CHECK_THROWS_WITH(second.begin(), Contains("another run is writing to this output"));
  }
  RowLogOptions options = ten_items(folder.path() / "three");
  RowLog late(options);
  { RowLog(options).append({row(1)}); }
  CHECK_THROWS_WITH(late.begin(), Contains("three: another run has begun this output meanwhile"));
  CHECK(load_text(folder.path() / "three") == "row 1\n");
}

TEST_CASE("a link is the file that it names, and another name keeps what it had") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out", link = folder.path() / "link";
  fs::create_symlink("out", link);  // to nothing yet
  {
    RowLog log(ten_items(link));
    log.append({row(0)});
    CHECK_THROWS_WITH(RowLog(ten_items(output)), Contains("another run is writing"));
    CHECK(folder.names() == std::vector<std::string>{"link", "out", "out.journal"});
  }
  CHECK(fs::is_symlink(link));
  CHECK(RowLog(ten_items(output)).rows() == 1);
  fs::create_hard_link(output, folder.path() / "backup");
  {
    RowLog log(ten_items(output));
    CHECK_THROWS_WITH(RowLog(ten_items(folder.path() / "backup")),
                      Contains("another run is writing to this output"));
    log.append({row(1)});
  }
  CHECK(load_text(output) == "row 0\nrow 1\n");
  CHECK(load_text(folder.path() / "backup") == "row 0\n");
}

TEST_CASE("rows replace nothing that a run reads") {
  const ScratchFolder folder;
  folder.write("in.jsonl", "{}\n");
  folder.write("model/weights", "w");
  fs::create_symlink("in.jsonl", folder.path() / "link");
  fs::create_hard_link(folder.path() / "in.jsonl", folder.path() / "name");
  folder.write("list.journal", "a.png\n");
  UsedFiles used;
  used.add(folder.path() / "in.jsonl", "an input");
  used.add(folder.path() / "list.journal", "an input");
  used.add(folder.path() / "missing", "an input");
  used.add_folder(folder.path() / "model", "a file of the model");
  for (const char* name : {"in.jsonl", "link", "name"}) {
    CHECK_THROWS_WITH(used.check_output(folder.path() / name),
                      Contains(": the output would replace an input (choose another --output)"));
  }
  CHECK_THROWS_WITH(used.check_output(folder.path() / "model/weights"),
                    Contains("would replace a file of the model"));
  CHECK_THROWS_WITH(used.check_output(folder.path() / "list"),
                    Contains("list.journal: the output would replace an input"));
  CHECK_NOTHROW(used.check_output(folder.path() / "out.jsonl"));
  CHECK_NOTHROW(used.check_output(folder.path() / "missing"));
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
