// An output file and its journal: rows go in, each exactly once, whatever moment the run ends at.
//
// Opening only looks: it takes the locks of what is there, compares the options, and finds the rows
// that the output really holds (row_match.h). begin() then makes what isn't there or mends what
// differs: lines that are no rows of the run are moved to OUTPUT.set-aside, never deleted. Rows may
// come in any order of items. Both files are synced to the disk every few seconds.
//
// To begin, to take rows out (--retry-errors), to mend and to put in order, both files are written
// anew beside the old ones (OUTPUT.journal.rows, OUTPUT.journal.tmp); the rename of the new journal
// to ".journal.new" is the moment that decides, and the next opening completes what was left behind
// it. So the file under the output's name is never cut, and other names of it (hard links) keep it.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "infer/batch/journal.h"
#include "infer/batch/row_file.h"
#include "infer/batch/row_match.h"

namespace vlm::infer {

struct RowLogOptions {
  std::filesystem::path output;
  JournalHeader header;
  std::string preamble = {};   // stands in front of all rows
  bool restart = false;        // rows that are there are deleted
  bool allow_changes = false;  // goes on although options have changed
  bool retry_errors = false;   // rows with an error are taken out, their items are to be done again
};

struct FinishedRow {
  std::int64_t ordinal = 0;
  std::string text;  // ends as the preamble does, or with "\n"
  bool is_error = false;
};

class RowLog {
 public:
  // Throws Error when the output is in use, holds rows without a journal, or was begun with other
  // options (naming the first). A symbolic link stands for the file that it names.
  explicit RowLog(RowLogOptions options);

  bool is_done(std::int64_t ordinal) const { return done_[static_cast<std::size_t>(ordinal)]; }
  const std::vector<bool>& done() const { return done_; }
  std::int64_t rows() const { return rows_; }      // of this shard that are done
  std::int64_t errors() const { return errors_; }  // of them with an error
  const JournalHeader& header() const { return options_.header; }
  const std::filesystem::path& output() const { return options_.output; }

  // From here on the files are written; to be called when nothing else can be refused. What writes
  // or reads rows calls it, too; again it does nothing.
  void begin();

  // Throws Error when the disk is full; what was appended before stays, and a later run goes on.
  void append(const std::vector<FinishedRow>& rows);

  // Calls `use` with each row that is there, in the order of the file.
  void for_each_row(const std::function<void(std::int64_t ordinal, const std::string& row)>& use);

  // Rows in the order of items, when they are not.
  void sort();

  // Everything is on the disk when it returns.
  void sync();

 private:
  void look();
  void complete_rewrite();
  void compare_options(const JournalHeader& old);
  void log_damage() const;
  void set_foreign_lines_aside() const;
  void count(const RowRecord& record);
  void count_kept();
  std::vector<MatchedRow> written_rows() const;
  void write(const std::vector<FinishedRow>& rows, std::uint32_t flags);
  void rewrite(std::vector<MatchedRow> rows);
  bool stays(const MatchedRow& row) const;

  RowLogOptions options_;
  std::filesystem::path journal_path_;
  std::string line_end_;
  RowFile output_, journal_;
  std::optional<RowMatch> found_;  // what the last run left, until begin()
  bool has_begun_ = false, has_changed_options_ = false;
  std::uint64_t journal_size_ = 0;
  std::vector<bool> done_;
  std::int64_t rows_ = 0, errors_ = 0, last_ = -1;
  bool is_sorted_ = true;
  std::uint64_t end_ = 0;  // of the output
  std::chrono::steady_clock::time_point synced_ = std::chrono::steady_clock::now();
};

// Where rows go when they are written to `output`: behind symbolic links. Throws Error for links
// that go round in circles, and for what is no file.
std::filesystem::path resolve_output(const std::filesystem::path& output);

// The file that a run with this output adds its rows to: the output itself, or what lies beside a
// Parquet file.
std::filesystem::path rows_path(const std::filesystem::path& output);

// The files that a run whose rows go here makes and replaces.
std::vector<std::filesystem::path> files_of_output(const std::filesystem::path& output);

}  // namespace vlm::infer
