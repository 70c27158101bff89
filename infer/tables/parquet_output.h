// Rows of a run → the Parquet file that --output names.
//
//   x.parquet.jsonl, with its journal, as long as the run goes ─► ParquetOutput::write ─► x.parquet
//
// A Parquet file can't be added to, so a run keeps its rows as JSONL beside it, where the journal
// vouches for each; the table is written anew, beside its place, each time all rows are there.
// Types of columns that every run has are fixed; those of the input's follow from its values
// (column_types.h). The file carries what it was made from, so that no other file is replaced.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/tables/table_writer.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// Told by the suffix .parquet.
bool is_parquet(const std::filesystem::path& output);

// Throws Error when this build can't write Parquet.
void check_parquet_is_written();

// The file beside the table that holds its rows.
std::filesystem::path rows_beside(const std::filesystem::path& table);

// What a table was made from, of the options of its run's journal: kRunNote of the inputs, the
// command and the columns, kOptionsNote of everything.
inline constexpr const char* kRunNote = "vlm.run";
inline constexpr const char* kOptionsNote = "vlm.options";
data::TableNotes table_notes(const OrderedJson& options);

struct ParquetOptions {
  std::filesystem::path output;  // behind symbolic links
  OrderedJson columns;           // a row with a value of each column's kind; null: by the rows
  data::TableNotes notes;        // what the rows were made from
};

class ParquetOutput {
 public:
  // Calls `use` with each row (a line of JSON), in the order of the file.
  using Rows = std::function<void(const std::function<void(const std::string& row)>& use)>;

  // Throws Error as check_parquet_is_written.
  explicit ParquetOutput(ParquetOptions options);

  // Throws Error when a file is there whose note of this name is another; `hint` says how to go on.
  void check_replaced(const char* note, const std::string& hint) const;

  // Goes through the rows twice. Throws Error when the file can't be written, Interrupted at a stop
  // request; what is there then stays.
  void write(const Rows& rows) const;

  // The files that it makes and replaces, but for the rows and their journal.
  std::vector<std::filesystem::path> files() const;

 private:
  std::filesystem::path unfinished() const;

  ParquetOptions options_;
  const data::TableWriting* writing_;
};

}  // namespace vlm::infer
