#include "infer/batch/row_format.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "infer/tables/parquet_output.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

OrderedJson to_row(const BatchItem& item, const RequestAnswer& answer,
                   const AnswerReportOptions& report) {
  OrderedJson row;
  row["id"] = item.id;
  row.update(item.columns);
  if (answer.error.empty()) {
    row.update(report_answer(answer, report));
  } else {
    row["error"] = answer.error;
  }
  return row;
}

OrderedJson to_message(const std::optional<std::string>& text) {
  OrderedJson message = {{"role", "assistant"}, {"content", nullptr}};
  if (text) message["content"] = *text;
  return message;
}

OrderedJson to_choice(std::size_t index, const std::optional<std::string>& text,
                      const std::string& finish_reason) {
  return {{"index", index},
          {"message", to_message(text)},
          {"logprobs", nullptr},
          {"finish_reason", finish_reason}};
}

OrderedJson to_completion(const BatchItem& item, const RequestAnswer& answer,
                          const AnswerReportOptions& report) {
  std::int64_t completion_tokens = 0;
  OrderedJson choices = OrderedJson::array();
  for (std::size_t i = 0; i < answer.generations.size(); ++i) {
    const Generation& generation = answer.generations[i];
    completion_tokens += std::ssize(generation.ids);
    // The format has no word for an answer that the vocabulary can't spell: it isn't whole either.
    const bool is_stuck = generation.finish_reason == "stuck";
    choices.push_back(to_choice(i, i == 0 ? shown_text(answer, report) : generation.text,
                                is_stuck ? "length" : generation.finish_reason));
  }
  if (choices.empty()) choices.push_back(to_choice(0, shown_text(answer, report), "stop"));
  OrderedJson body;
  body["id"] = concat("chatcmpl-", item.ordinal);
  body["object"] = "chat.completion";
  body["created"] = 0;  // the same run gives the same bytes
  const OrderedJson model = item.columns.value("model", OrderedJson());
  body["model"] = model.is_string() ? model : OrderedJson(model.is_null() ? "vlm" : model.dump());
  body["choices"] = choices;
  body["usage"] = {{"prompt_tokens", answer.prompt_tokens},
                   {"completion_tokens", completion_tokens},
                   {"total_tokens", answer.prompt_tokens + completion_tokens}};
  return body;
}

OrderedJson to_openai_row(const BatchItem& item, const RequestAnswer& answer,
                          const AnswerReportOptions& report) {
  OrderedJson row;
  row["id"] = concat("batch_req_", item.ordinal);
  row["custom_id"] = item.id;
  row["response"] = nullptr;
  row["error"] = nullptr;
  if (answer.error.empty()) {
    row["response"] = {{"status_code", 200},
                       {"request_id", concat("req_", item.ordinal)},
                       {"body", to_completion(item, answer, report)}};
  } else {
    row["error"] = {{"code", "item_failed"}, {"message", answer.error}};
  }
  return row;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c;
    if (c == '"') quoted += c;
  }
  return quoted + "\"";
}

// No other item could be written either; anything else is about this one name.
bool is_disk_failure(const Error& error) {
  const std::string& got = error.parts().got;
  return got == std::strerror(ENOSPC) || got == std::strerror(EDQUOT) || got == std::strerror(EIO);
}

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

}  // namespace

OutputFormat parse_output_format(const std::string& name, const fs::path& output) {
  const bool is_table = is_parquet(output);
  if (name.empty() && is_table) return OutputFormat::kParquet;
  if (name.empty()) return output.extension() == ".csv" ? OutputFormat::kCsv : OutputFormat::kJsonl;
  if (is_table != (name == to_string(OutputFormat::kParquet))) {
    throw Error({.what = "format and name of the output differ",
                 .where = "--output-format",
                 .got = concat(name, " for ", output.string()),
                 .wanted = "parquet for names that end with .parquet, and for no others"});
  }
  for (const auto format : {OutputFormat::kJsonl, OutputFormat::kCsv, OutputFormat::kOpenAi,
                            OutputFormat::kTxt, OutputFormat::kParquet}) {
    if (name == to_string(format)) return format;
  }
  throw Error({.what = "unknown format",
               .where = "--output-format",
               .got = concat("'", name, "'"),
               .wanted = "jsonl, csv, openai, txt or parquet"});
}

std::string to_string(OutputFormat format) {
  switch (format) {
    case OutputFormat::kCsv:
      return "csv";
    case OutputFormat::kOpenAi:
      return "openai";
    case OutputFormat::kTxt:
      return "txt";
    case OutputFormat::kParquet:
      return "parquet";
    default:
      return "jsonl";
  }
}

RowFormat::RowFormat(OutputFormat format, const std::vector<std::string>& columns,
                     AnswerReportOptions report)
    : format_(format), report_(std::move(report)), columns_{"id"} {
  columns_.insert(columns_.end(), columns.begin(), columns.end());
  const auto answer = report_columns(report_);
  columns_.insert(columns_.end(), answer.begin(), answer.end());
  columns_.emplace_back("error");
}

std::string RowFormat::preamble() const {
  if (format_ != OutputFormat::kCsv) return "";
  std::string line;
  for (const std::string& name : columns_) line += csv_field(name) + ",";
  line.pop_back();
  return line + "\r\n";
}

std::string RowFormat::row(const BatchItem& item, const RequestAnswer& answer) const {
  if (format_ == OutputFormat::kCsv) return csv_line(to_row(item, answer, report_));
  const bool is_openai = format_ == OutputFormat::kOpenAi;
  return dump_text(is_openai ? to_openai_row(item, answer, report_)
                             : to_row(item, answer, report_)) +
         "\n";
}

std::string RowFormat::csv_line(const OrderedJson& row) const {
  std::string line;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    if (i > 0) line += ',';
    const auto value = row.find(columns_[i]);
    if (value == row.end() || value->is_null()) continue;
    line += csv_field(value->is_string() ? as_utf8(value->get<std::string>()) : dump_text(*value));
  }
  return line + "\r\n";
}

void write_text_file(const BatchItem& item, const std::string& text, bool overwrite) {
  if (item.shares_text_file) {
    throw TextFileError({.what = "several rows would write one .txt",
                         .where = item.text_file,
                         .hint = "choose another --output-format"});
  }
  if (item.text_file.empty()) {
    throw TextFileError({.what = "no picture file that a .txt could lie beside",
                         .where = item.id,
                         .hint = "choose another --output-format"});
  }
  const std::string content = trimmed(text) + "\n";
  try {
    std::error_code code;
    if (fs::exists(item.text_file, code) && !code) {
      if (load_text(item.text_file) == content) return;
      if (!overwrite) {
        throw TextFileError({.what = "the file is there already, with other text",
                             .where = item.text_file,
                             .hint = "--overwrite replaces such files"});
      }
    }
    NewFile file(item.text_file);
    file.write(content);
    file.commit_without_waiting();  // a file an item: waiting for each would take most of the time
  } catch (const TextFileError&) {
    throw;
  } catch (const Error& error) {
    if (is_disk_failure(error)) throw;
    throw TextFileError(error.parts());
  }
}

}  // namespace vlm::infer
