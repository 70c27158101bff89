// An output file with its journal. Every item gets exactly one row, whenever the run ends.
//
// The constructor changes nothing: it locks the files, compares the options, and finds the rows
// that the output really holds (row_match.h). begin() then makes missing files and mends damaged
// ones; lines that are no rows of the run are moved to OUTPUT.set-aside, never deleted. Rows may
// be added in any order of items. Both files are synced to the disk every few seconds.
//
// To begin, mend, sort, or remove rows (--retry-errors), both files are written anew next to the
// old ones (OUTPUT.journal.rows, OUTPUT.journal.tmp). The change counts from the rename of the new
// journal to ".journal.new"; if the run is killed after it, the next start does what is left. So
// the output itself is never cut, and its other hard links keep the old file.
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
  std::string preamble = {};   // the text before all rows
  bool restart = false;        // deletes the rows of earlier runs
  bool allow_changes = false;  // goes on although options have changed
  bool retry_errors = false;   // removes rows with an error, so that their items are asked again
};

struct FinishedRow {
  std::int64_t ordinal = 0;
  std::string text;  // with its line end: the preamble's, else "\n"
  bool is_error = false;
};

class RowLog {
 public:
  // Throws Error when the output is in use, holds rows without a journal, or was begun with other
  // options (naming the first). A symbolic link stands for the file that it names.
  explicit RowLog(RowLogOptions options);

  bool is_done(std::int64_t ordinal) const { return done_[static_cast<std::size_t>(ordinal)]; }
  const std::vector<bool>& done() const { return done_; }
  std::int64_t rows() const { return rows_; }      // of this shard, written so far
  std::int64_t errors() const { return errors_; }  // rows with an error, of those
  const JournalHeader& header() const { return options_.header; }
  const std::filesystem::path& output() const { return options_.output; }

  // Makes or mends the files. Call it once everything that could be refused was checked; the
  // functions below call it, too. A second call does nothing.
  void begin();

  // Throws Error when the disk is full. Rows that were appended before stay.
  void append(const std::vector<FinishedRow>& rows);

  // Calls `use` with each row of the output, in the order of the file.
  void for_each_row(const std::function<void(std::int64_t ordinal, const std::string& row)>& use);

  // Puts the rows in the order of items.
  void sort();

  // Returns when everything is on the disk.
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
