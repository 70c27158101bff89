// An answer → its row, in the formats of --output-format.
//
//   jsonl    one object a line: id, the item's columns, the answer's fields or "error"
//   csv      RFC 4180, the same columns under a fixed header, lines end with CR LF
//   openai   result rows of OpenAI's batch format
//   txt      rows as jsonl, and the answer alone in a .txt beside the picture
//   parquet  rows as jsonl, from which the table is made at the end (infer/tables)
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "infer/answer_report.h"
#include "infer/items/item.h"
#include "vlm/core/error.h"

namespace vlm::infer {

enum class OutputFormat { kJsonl, kCsv, kOpenAi, kTxt, kParquet };

// By its name; an empty name is told by the output's suffix: .csv, .parquet, else jsonl. Throws
// Error, also where the one is parquet and the other isn't.
OutputFormat parse_output_format(const std::string& name, const std::filesystem::path& output);
std::string to_string(OutputFormat format);

class RowFormat {
 public:
  // `columns` are those that items may have (ItemList::columns).
  RowFormat(OutputFormat format, const std::vector<std::string>& columns,
            AnswerReportOptions report = {});

  OutputFormat format() const { return format_; }
  const AnswerReportOptions& report() const { return report_; }
  std::string preamble() const;  // in front of all rows; mostly empty
  std::string row(const BatchItem& item, const RequestAnswer& answer) const;

 private:
  std::string csv_line(const OrderedJson& row) const;

  OutputFormat format_;
  AnswerReportOptions report_;
  std::vector<std::string> columns_;  // all of a CSV row
};

// Why one item alone gets no .txt file, as opposed to a disk that is full.
class TextFileError : public Error {
 public:
  using Error::Error;
};

// Writes the answer without surrounding space and with a line end to item.text_file. Throws
// TextFileError when the item has no picture file to lie beside, or the file holds something else
// and `overwrite` is false.
void write_text_file(const BatchItem& item, const std::string& text, bool overwrite);

}  // namespace vlm::infer
