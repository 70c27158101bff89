// Outputs and journals that something happened to between two runs.
#include "infer/batch/row_log.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/infer/batch/logs.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

struct Damage {
  const char* name;
  std::string output;  // what somebody made of it
  std::vector<std::int64_t> kept;
  std::string mended;
  std::string set_aside = {};
};

// Rows 0 to 5 of ten were written, 4 with an error.
TEST_CASE("an output that was changed between two runs is mended, and told about") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out", aside = folder.path() / "out.set-aside";
  std::vector<FinishedRow> rows;
  for (int i = 0; i < 6; ++i) rows.push_back(row(i, i == 4));
  { RowLog(ten_items(output)).append(rows); }
  const std::string whole = load_text(output), journal = load_text(journal_path(output));
  const std::vector<Damage> damages = {
      {"a row deleted",
       "row 0\nrow 2\nrow 3\nrow 4 failed\nrow 5\n",
       {0, 2, 3, 4, 5},
       "row 0\nrow 2\nrow 3\nrow 4 failed\nrow 5\n"},
      {"the first rows deleted",
       "row 3\nrow 4 failed\nrow 5\n",
       {3, 4, 5},
       "row 3\nrow 4 failed\nrow 5\n"},
      {"all deleted", "", {}, ""},
      {"a row edited",
       "row 0\nrow one\nrow 2\nrow 3\nrow 4 failed\nrow 5\n",
       {0, 2, 3, 4, 5},
       "row 0\nrow 2\nrow 3\nrow 4 failed\nrow 5\n",
       "row one\n"},
      {"another order",
       "row 5\nrow 1\nrow 0\nrow 4 failed\nrow 3\nrow 2\n",
       {0, 1, 2, 3, 4, 5},
       "row 5\nrow 1\nrow 0\nrow 4 failed\nrow 3\nrow 2\n"},
      {"a row twice",
       "row 0\nrow 1\nrow 1\nrow 2\nrow 3\nrow 4 failed\nrow 5\n",
       {0, 1, 2, 3, 4, 5},
       whole,
       "row 1\n"},
      {"lines put in",
       "# mine\nrow 0\nrow 1\n\nrow 2\nrow 3\nrow 4 failed\nrow 5\nthe end\n",
       {0, 1, 2, 3, 4, 5},
       whole,
       "# mine\n\nthe end\n"},
      {"other line ends",
       "row 0\r\nrow 1\r\nrow 2\r\nrow 3\r\nrow 4 failed\r\nrow 5\r\n",
       {0, 1, 2, 3, 4, 5},
       whole},
      {"no line end behind the last", whole.substr(0, whole.size() - 1), {0, 1, 2, 3, 4, 5}, whole},
      {"cut inside of a row", "row 0\nrow 1\nro", {0, 1}, "row 0\nrow 1\n", "ro"},
      {"another file", "{\"id\": 7}\nsomething", {}, "", "{\"id\": 7}\nsomething"},
      {"rows behind the last record", whole + "row 6\nrow 7", {0, 1, 2, 3, 4, 5}, whole, "row 6\n"},
      {"zeros behind the last record",
       whole + std::string(20, '\0') + "\n",
       {0, 1, 2, 3, 4, 5},
       whole,
       std::string(20, '\0') + "\n"},
  };
  for (const Damage& damage : damages) {
    INFO(damage.name);
    folder.write("out", damage.output);
    folder.write("out.journal", journal);
    fs::remove(aside);
    std::vector<std::string> told;
    set_log_sink([&](LogLevel level, const std::string& text) {
      if (level == LogLevel::kWarning) told.push_back(text);
    });
    {
      RowLog log(ten_items(output));
      std::vector<std::int64_t> done;
      for (int i = 0; i < 10; ++i) {
        if (log.is_done(i)) done.push_back(i);
      }
      CHECK(done == damage.kept);
      CHECK(log.errors() == (std::count(done.begin(), done.end(), 4) > 0 ? 1 : 0));
      CHECK(load_text(output) == damage.output);
      log.begin();
      CHECK(load_text(output) == damage.mended);
      CHECK((fs::exists(aside) ? load_text(aside) : "") == damage.set_aside);
      std::vector<FinishedRow> rest;
      for (int i = 0; i < 10; ++i) {
        if (!log.is_done(i)) rest.push_back(row(i, i == 4));
      }
      log.append(rest);
      log.sort();
    }
    set_log_sink({});
    REQUIRE(told.size() == 1);
    CHECK_THAT(told[0], Contains("out: not as the last run left it: "));
    const std::size_t lost = 6 - damage.kept.size();
    if (lost > 0)
      CHECK_THAT(told[0], Contains(std::to_string(lost) + (lost == 1 ? " row is" : " rows are") +
                                   " gone or changed and asked again"));
    if (!damage.set_aside.empty()) CHECK_THAT(told[0], Contains("are moved to " + aside.string()));
    CHECK(load_text(output) == whole + "row 6\nrow 7\nrow 8\nrow 9\n");
    CHECK(RowLog(ten_items(output)).rows() == 10);
  }
}

TEST_CASE("rows of CSV keep their line ends inside of quotes, and their header") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out.csv";
  RowLogOptions options = ten_items(output);
  options.preamble = "id,text\r\n";
  const std::vector<FinishedRow> rows = {
      {0, "0,\"two\nlines\"\r\n"}, {1, "1,\"a \"\"b\"\",\r\n\r\nc\"\r\n"}, {2, "2,x\r\n"}};
  { RowLog(options).append(rows); }
  const std::string whole = load_text(output), journal = load_text(journal_path(output));
  for (const std::string& changed : {"ID,TEXT\r\n" + rows[0].text + rows[1].text + rows[2].text,
                                     rows[2].text + options.preamble + rows[1].text + rows[0].text,
                                     rows[0].text + rows[1].text + rows[2].text}) {
    folder.write("out.csv", changed);
    folder.write("out.csv.journal", journal);
    RowLog log(options);
    CHECK(log.rows() == 3);
    log.sort();
    CHECK(load_text(output) == whole);
  }
  folder.write("out.csv", options.preamble + rows[0].text + rows[2].text);
  folder.write("out.csv.journal", journal);
  RowLog log(options);
  CHECK((log.is_done(0) && !log.is_done(1) && log.is_done(2)));
}

TEST_CASE("a journal that was damaged costs the rows that it doesn't know any more") {
  const ScratchFolder folder;
  const fs::path output = folder.path() / "out";
  { RowLog(ten_items(output)).append({row(0), row(1), row(2), row(3)}); }
  const std::string whole = load_text(output), journal = load_text(journal_path(output));
  const std::size_t records = journal.find('\n') + 1;
  const auto mend = [&](const std::string& changed) {
    folder.write("out", whole);
    folder.write("out.journal", changed);
    fs::remove(folder.path() / "out.set-aside");
    RowLog log(ten_items(output));
    log.begin();
    return load_text(output);
  };
  std::string damaged = journal;
  damaged[records + 32 + 5] ^= 1;  // the record of row 1
  CHECK(mend(damaged) == "row 0\nrow 2\nrow 3\n");
  CHECK(load_text(folder.path() / "out.set-aside") == "row 1\n");
  CHECK(mend(journal.substr(0, records + 64 + 10)) == "row 0\nrow 1\n");
  CHECK(mend(journal.substr(0, records)) == "");
  // Items that don't exist, also such whose number is negative as a signed one, and one twice.
  for (const std::uint64_t ordinal :
       {std::uint64_t{10}, std::uint64_t{1} << 63, ~std::uint64_t{0}, std::uint64_t{0}}) {
    RowRecord record;
    std::memcpy(&record, journal.data() + records + 64, sizeof record);
    record.ordinal = ordinal;
    record.seal();
    damaged = journal;
    std::memcpy(damaged.data() + records + 64, &record, sizeof record);
    INFO(ordinal);
    CHECK(mend(damaged) == "row 0\nrow 1\nrow 3\n");
  }
  const std::string left = load_text(output);
  folder.write("out.journal", journal.substr(0, 5) + "?" + journal.substr(6));
  CHECK_THROWS_WITH(RowLog(ten_items(output)), Contains("not a journal"));
  folder.write("out.journal", journal.substr(0, 20) + "?" + journal.substr(20));
  CHECK_THROWS_WITH(RowLog(ten_items(output)),
                    Contains("out.journal: the journal's first line is damaged (choose another "
                             "--output, or --restart to begin anew)"));
  folder.write("out.journal", "{\"vlm_journal\":2,\"items\":\"x\"}\n");
  CHECK_THROWS_WITH(RowLog(ten_items(output)), Contains("first line is damaged"));
  for (const std::string& nothing : {std::string(), std::string(300, '\0'), journal.substr(0, 9)}) {
    folder.write("out.journal", nothing);
    CHECK_THROWS_WITH(RowLog(ten_items(output)), Contains("no journal tells of which run"));
  }
  CHECK(load_text(output) == left);
}

}  // namespace
}  // namespace vlm::infer
