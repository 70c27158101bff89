// Compares a journal with its output: which rows are really there, and where.
//
// Between two runs people or programs may delete, edit or sort rows or change line ends, and a
// power cut may lose the end of the file. Each record's row is looked for at its recorded place;
// from the first row that isn't there on, by its digest among all lines. So only missing and
// changed rows are asked again.
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
  std::uint32_t size = 0;  // in the file; differs from the written size if line ends were changed
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
  std::int64_t lost = 0;           // records whose rows are not in the file
  bool is_in_place = true;         // every row is where its record says, without gaps
  std::uint64_t end = 0;           // offset of the last row's end

  // True when the file holds exactly the rows as they were written.
  bool is_intact() const { return is_in_place && lost == 0; }
};

// Every row ends with `line_end`. A second record of an item, and records of items that don't
// exist, are ignored. An output that isn't open counts as empty.
RowMatch match_rows(const Journal& journal, std::int64_t items, const RowFile& output,
                    const std::string& line_end);

// The row's bytes as it was written.
std::string read_row(RowReader& reader, const MatchedRow& row, const std::string& line_end);

}  // namespace vlm::infer
