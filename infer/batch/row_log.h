// An output file and its journal: rows go in, each exactly once, whatever moment the run ends at.
//
// Opening goes on where the last run stopped: it takes the lock, compares the options, drops what
// is torn, and knows which items are done. Rows may come in any order of items. Both files are
// synced to the disk every few seconds.
//
// Rows are taken out (--retry-errors) or put in order by writing both files anew beside the old
// ones; the rename of the new journal to ".journal.new" is the moment that decides, and the next
// opening completes what was left behind it.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "infer/batch/journal.h"
#include "infer/batch/row_file.h"

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
  std::string text;
  bool is_error = false;
};

class RowLog {
 public:
  // Throws Error when the output is in use, holds rows without a journal, or was begun with other
  // options (naming the first).
  explicit RowLog(RowLogOptions options);

  bool is_done(std::int64_t ordinal) const { return done_[static_cast<std::size_t>(ordinal)]; }
  const std::vector<bool>& done() const { return done_; }
  std::int64_t rows() const { return rows_; }      // of this shard that are done
  std::int64_t errors() const { return errors_; }  // of them with an error
  const JournalHeader& header() const { return options_.header; }
  const std::filesystem::path& output() const { return options_.output; }

  // Throws Error when the disk is full; what was appended before stays, and a later run goes on.
  void append(const std::vector<FinishedRow>& rows);

  // Rows in the order of items, when they are not.
  void sort();

  // Everything is on the disk when it returns.
  void sync();

 private:
  void complete_rewrite();
  void begin();
  void go_on(Journal journal);
  void compare_options(const JournalHeader& old);
  void count(const RowRecord& record);
  void write(const std::vector<FinishedRow>& rows, std::uint32_t flags);
  void rewrite(const std::function<bool(const RowRecord&)>& keep, bool sorted);

  RowLogOptions options_;
  std::filesystem::path journal_path_;
  RowFile output_, journal_;
  std::vector<bool> done_;
  std::int64_t rows_ = 0, errors_ = 0, last_ = -1;
  bool is_sorted_ = true;
  std::uint64_t end_ = 0;  // of the output
  std::chrono::steady_clock::time_point synced_ = std::chrono::steady_clock::now();
};

}  // namespace vlm::infer
