#include "infer/batch/row_sink.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "infer/items/item_failure.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm::infer {

namespace fs = std::filesystem;

void RowSink::add(const BatchItem& item, RequestAnswer answer) {
  const bool is_answered = answer.error.empty();
  const auto text = is_answered ? shown_text(answer, format_.report()) : std::nullopt;
  if (format_.format() == OutputFormat::kTxt && text) {
    try {
      write_text(item, *text);
    } catch (const TextFileError& error) {
      answer.error = error.what();
    }
  }
  FinishedRow row{.ordinal = item.ordinal, .text = make_row(item, answer)};
  // Of OpenAI's rows the finish_reason tells.
  const bool has_fault = format_.format() != OutputFormat::kOpenAi && !answer_fault(answer).empty();
  row.is_error = !answer.error.empty() || has_fault;
  if (options_.in_input_order) {
    waiting_.emplace(row.ordinal, std::move(row));
  } else {
    ready_.push_back(std::move(row));
  }
}

// A row whose own columns can't be written has its id and the error.
std::string RowSink::make_row(const BatchItem& item, RequestAnswer& answer) const {
  try {
    return format_.row(item, answer);
  } catch (const std::exception& error) {
    answer.error = failure_text(error);
    return format_.row({.ordinal = item.ordinal, .id = item.id}, answer);
  }
}

void RowSink::write_text(const BatchItem& item, const std::string& text) const {
  std::error_code code;
  if (!item.text_file.empty() && fs::exists(item.text_file, code)) {
    const char* role = options_.used ? options_.used->role_of(item.text_file) : nullptr;
    for (const fs::path& file : files_of_output(log_.output())) {
      if (fs::equivalent(file, item.text_file, code)) role = "the output or its journal";
    }
    if (role) {
      throw TextFileError({.what = concat("the .txt would replace ", role),
                           .where = item.text_file,
                           .hint = "choose another --output-format"});
    }
  }
  write_text_file(item, text, options_.overwrites_text);
}

void RowSink::restore_text_files(const ItemList& items) {
  std::int64_t group = 0, restored = 0;
  std::vector<BatchItem> made;
  // Rows are mostly in the order of items, so a group is made once for all of its rows.
  const auto find = [&](std::int64_t ordinal) -> const BatchItem& {
    const bool is_inside = !made.empty() && items.first_item(group) <= ordinal &&
                           ordinal < items.first_item(group + 1);
    if (!is_inside) {
      std::int64_t end = items.groups();
      for (group = 0; end - group > 1;) {
        const std::int64_t middle = group + (end - group) / 2;
        (items.first_item(middle) <= ordinal ? group : end) = middle;
      }
      made.clear();
      for (ItemGroup& part : items.group(group))
        std::ranges::move(part.items, std::back_inserter(made));
    }
    return made.at(static_cast<std::size_t>(ordinal - items.first_item(group)));
  };
  log_.for_each_row([&](std::int64_t ordinal, const std::string& line) {
    const BatchItem& item = find(ordinal);
    std::error_code code;
    if (item.text_file.empty() || fs::exists(item.text_file, code)) return;
    const OrderedJson row = OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || row.contains("error") || !row.contains("text")) return;
    if (!row["text"].is_string()) return;  // withheld
    try {
      write_text(item, row["text"].get<std::string>());
      ++restored;
    } catch (const TextFileError& error) {
      log_warning(error.what());
    }
  });
  if (restored > 0) log_warning(concat(restored, " .txt files were gone and are written again"));
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
