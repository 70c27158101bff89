#include "infer/tables/parquet_output.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "infer/tables/column_types.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/plugin.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/core/sha256.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

const data::TableWriting& table_writing() {
  using Function = const data::TableWriting* (*)();
  static const data::TableWriting* writing = reinterpret_cast<Function>(
      open_plugin("vlm_arrow", "vlm_table_writing", "Parquet files can't be written"))();
  return *writing;
}

// The notes of the file; none of what is no Parquet file.
data::TableNotes notes_of(const data::TableWriting& writing, const fs::path& file) {
  try {
    return writing.read_notes(file.string());
  } catch (const std::exception&) {
    return {};
  }
}

OrderedJson parse_row(const std::string& row, const fs::path& file) {
  return parse_ordered_json(row, rows_beside(file).string());
}

}  // namespace

bool is_parquet(const fs::path& output) {
  return output.extension() == ".parquet";
}

void check_parquet_is_written() {
  table_writing();
}

fs::path rows_beside(const fs::path& table) {
  return table.string() + ".jsonl";
}

data::TableNotes table_notes(const OrderedJson& options) {
  OrderedJson run;
  for (const char* name : {"command", "inputs", "columns"}) {
    run[name] = options.value(name, OrderedJson());
  }
  return {{kRunNote, sha256_hex(dump_text(run))}, {kOptionsNote, sha256_hex(dump_text(options))}};
}

ParquetOutput::ParquetOutput(ParquetOptions options)
    : options_(std::move(options)), writing_(&table_writing()) {}

void ParquetOutput::check_replaced(const char* note, const std::string& hint) const {
  std::error_code code;
  if (!fs::exists(options_.output, code)) return;
  const data::TableNotes notes = notes_of(*writing_, options_.output);
  const auto found = notes.find(note);
  if (found != notes.end() && found->second == options_.notes.at(note)) return;
  throw Error({.what = "the output is there already, and is of another run",
               .where = options_.output.string(),
               .hint = hint});
}

std::vector<fs::path> ParquetOutput::files() const {
  return {options_.output, unfinished()};
}

fs::path ParquetOutput::unfinished() const {
  return rows_beside(options_.output).string() + ".journal.table";
}

void ParquetOutput::write(const Rows& rows) const {
  data::ColumnType row{.kind = data::ColumnType::Kind::kObject};
  widen_columns(row, options_.columns);
  rows([&](const std::string& line) {
    throw_if_stopped();
    widen_columns(row, parse_row(line, options_.output));
  });
  const fs::path file = unfinished();
  try {
    const auto writer = writing_->create(file.string(), settled(std::move(row)), options_.notes);
    rows([&](const std::string& line) {
      throw_if_stopped();
      writer->add(parse_row(line, options_.output));
    });
    writer->finish();
    sync_file(file);
    rename_durably(file, options_.output);
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove(file, ignored);
    const bool is_told =
        dynamic_cast<const Error*>(&error) || dynamic_cast<const Interrupted*>(&error);
    if (is_told) throw;
    throw Error({.what = "can't write the table",
                 .where = options_.output.string(),
                 .got = error.what(),
                 .hint = concat("the rows are in ", rows_beside(options_.output).string(),
                                "; the same command goes on")});
  }
}

}  // namespace vlm::infer
