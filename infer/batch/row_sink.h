// Answers, in the order in which they are finished → rows of the log, in input or completion order.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "infer/batch/row_format.h"
#include "infer/batch/row_log.h"
#include "infer/batch/used_files.h"
#include "infer/items/item_list.h"

namespace vlm::infer {

struct RowSinkOptions {
  bool in_input_order = true;
  bool overwrites_text = false;                     // replaces .txt files that hold other text
  std::shared_ptr<const UsedFiles> used = nullptr;  // files that no .txt may replace
};

class RowSink {
 public:
  // Log and format must outlive the sink.
  RowSink(RowLog& log, const RowFormat& format, const RowSinkOptions& options)
      : log_(log), format_(format), options_(options) {}

  // Announces an item. To be called in the order of the input, before the item is answered.
  void expect(std::int64_t ordinal) { expected_.push_back(ordinal); }

  // Adds the row of an announced item. flush() writes it; in input order once all rows before it
  // are there, too. An answer that can't be written becomes a row with an error.
  void add(const BatchItem& item, RequestAnswer answer);

  // Writes the rows that needn't wait for others.
  void flush();

  // Writes missing .txt files of rows that an earlier run wrote, from the rows' text.
  void restore_text_files(const ItemList& items);

 private:
  void write_text(const BatchItem& item, const std::string& text) const;
  std::string make_row(const BatchItem& item, RequestAnswer& answer) const;

  RowLog& log_;
  const RowFormat& format_;
  RowSinkOptions options_;
  std::deque<std::int64_t> expected_;            // announced and not written, in input order
  std::map<std::int64_t, FinishedRow> waiting_;  // by ordinal
  std::vector<FinishedRow> ready_;
};

}  // namespace vlm::infer
