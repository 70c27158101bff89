#include "infer/batch/row_sink.h"

#include <utility>

#include "vlm/core/error.h"

namespace vlm::infer {

void RowSink::add(const BatchItem& item, Answer answer) {
  const bool is_answered = answer.error.empty();
  const auto text = is_answered ? shown_text(answer, format_.report()) : std::nullopt;
  if (format_.format() == OutputFormat::kTxt && text) {
    try {
      write_text_file(item, *text, options_.overwrites_text);
    } catch (const TextFileError& error) {
      answer.error = error.what();
    }
  }
  FinishedRow row{.ordinal = item.ordinal,
                  .text = format_.row(item, answer),
                  .is_error = !answer.error.empty()};
  if (options_.in_input_order) {
    waiting_.emplace(row.ordinal, std::move(row));
  } else {
    ready_.push_back(std::move(row));
  }
}

void RowSink::flush() {
  if (options_.in_input_order) {
    while (!expected_.empty() && waiting_.count(expected_.front()) > 0) {
      ready_.push_back(std::move(waiting_.extract(expected_.front()).mapped()));
      expected_.pop_front();
    }
  } else {
    expected_.clear();
  }
  log_.append(ready_);
  ready_.clear();
}

}  // namespace vlm::infer
