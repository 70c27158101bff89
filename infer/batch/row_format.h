// An answer → the text of its row, in the format of --output-format.
//
//   jsonl    one object a line: id, the item's columns, the answer's fields or "error"
//   csv      RFC 4180: the same columns below a header line, lines end with CR LF
//   openai   result rows of OpenAI's batch format
//   txt      rows as jsonl, and each answer in a .txt file next to its picture
//   parquet  rows as jsonl, which become the table at the end of the run (infer/tables)
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

// The format of a name. With an empty name the output's suffix decides: .csv, .parquet, else jsonl.
// Throws Error for an unknown name, and when only one of name and suffix is parquet.
OutputFormat parse_output_format(const std::string& name, const std::filesystem::path& output);
std::string to_string(OutputFormat format);

class RowFormat {
 public:
  // `columns` are those that items may have (ItemList::columns).
  RowFormat(OutputFormat format, const std::vector<std::string>& columns,
            AnswerReportOptions report = {});

  OutputFormat format() const { return format_; }
  const AnswerReportOptions& report() const { return report_; }
  std::string preamble() const;  // the text before all rows: CSV's header, else empty
  std::string row(const BatchItem& item, const RequestAnswer& answer) const;

 private:
  std::string csv_line(const OrderedJson& row) const;

  OutputFormat format_;
  AnswerReportOptions report_;
  std::vector<std::string> columns_;  // of a CSV row
};

// An error of one item's .txt file. Others, such as a full disk, end the run.
class TextFileError : public Error {
 public:
  using Error::Error;
};

// Writes the answer to item.text_file, without surrounding space and with a line end. Throws
// TextFileError when the item has no text_file, shares it with another item, or the file exists
// with other text and `overwrite` is false.
void write_text_file(const BatchItem& item, const std::string& text, bool overwrite);

}  // namespace vlm::infer
