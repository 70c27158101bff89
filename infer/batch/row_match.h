// A journal's records and the bytes of the output → which rows are really there, and where.
//
// A file between two runs may be anything: rows deleted, edited or put in another order by hand,
// line ends changed by an editor, a tail that a power cut took. Every record's row is looked for at
// its place and, behind the first that isn't there, by its content among the lines of the file. So
// only what is gone or changed has to be asked again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "infer/batch/journal.h"
#include "infer/batch/row_file.h"

namespace vlm::infer {

struct MatchedRow {
  std::uint64_t ordinal = 0, digest = 0;
  std::uint64_t begin = 0;
  std::uint32_t size = 0;  // in the file; where line ends were changed, not the row's own
  std::uint32_t flags = 0;

  bool is_row() const { return (flags & RowRecord::kPreamble) == 0; }
  bool is_error() const { return (flags & RowRecord::kError) != 0; }
};

struct FilePiece {
  std::uint64_t begin = 0, end = 0;
};

struct RowMatch {
  std::vector<MatchedRow> rows;    // in the order of the file, the preamble too
  std::vector<FilePiece> foreign;  // lines that are no rows of the run
  std::int64_t lost = 0;           // records whose rows the file doesn't hold
  bool is_in_place = true;         // every row lies where its record says, one behind the other
  std::uint64_t end = 0;           // behind the last row

  // Rows and nothing else, as they were written.
  bool is_intact() const { return is_in_place && lost == 0; }
};

// `line_end` is what every row ends with. Records of items that don't exist or have a record
// already are passed over. An output that isn't open holds nothing.
RowMatch match_rows(const Journal& journal, std::int64_t items, const RowFile& output,
                    const std::string& line_end);

// The row's bytes as it was written.
std::string read_row(RowReader& reader, const MatchedRow& row, const std::string& line_end);

}  // namespace vlm::infer
