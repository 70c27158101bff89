// Files of every format → rows: objects with named columns.
//
//   file or folder ─► open_rows ─► RowSource: size(), at(i)
//
// The format is told by the content (tar, Parquet, Arrow, JSON list, JSONL), of CSV by the suffix.
// A folder is read through its metadata.jsonl or metadata.csv. Opening reads a text file once to
// index where rows begin, and of a table only footer or headers; a row is parsed when it is asked
// for. Files are read in pieces (file_bytes.h), never as a whole. Text may begin with a byte order
// mark and end its lines with LF, CRLF or CR.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats/file_bytes.h"
#include "data/formats/row_block.h"
#include "data/media/file_kinds.h"
#include "data/media/media_ref.h"
#include "vlm/core/json.h"

namespace vlm {
class ListDigest;
}

namespace vlm::data {

struct Row {
  Json columns;                  // an object
  std::string where;             // "train.jsonl:12"
  std::filesystem::path folder;  // where relative paths begin
  // The row's pictures in a tar, in their order. If there are any, references name these alone.
  std::vector<MediaRef> members = {};
};

class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual std::int64_t size() const = 0;
  // Thread-safe. Throws Error naming file and line for a row that can't be read.
  virtual Row at(std::int64_t index) const = 0;
  virtual std::string where(std::int64_t index) const = 0;
  // The row's columns in the file's order, without the bytes of pictures, which aren't read where
  // the file's layout allows it. Throws as `at`.
  virtual OrderedJson outline(std::int64_t index) const = 0;
  // Adds all that tells these rows from others, but for the content of pictures.
  virtual void add_to(ListDigest& digest) const = 0;
  // A name for a row that has no id.
  virtual std::string name(std::int64_t index) const { return where(index); }
  // Pictures in no row, because their kind can't be read.
  virtual KindCounts left_out() const { return {}; }
  // The rows that are read together (row groups, record batches), in order; empty when each row is
  // read by itself.
  virtual std::vector<RowBlock> blocks() const { return {}; }
};

// True for names with a suffix of data files: .jsonl, .csv, .parquet, …
bool has_rows_suffix(const std::filesystem::path& path);
// True for a folder with metadata.jsonl or metadata.csv.
bool is_rows_folder(const std::filesystem::path& path);

// How samples of a tar without a picture are read: as rows, or not at all.
enum class TarTexts { kRows, kNotes };

// Throws Error for a file that can't be read, or whose kind is unknown.
std::unique_ptr<RowSource> open_rows(const std::filesystem::path& path,
                                     TarTexts texts = TarTexts::kRows);

// The formats one by one.
std::unique_ptr<RowSource> open_jsonl_rows(const std::filesystem::path& path);  // one a line
std::unique_ptr<RowSource> open_json_rows(const std::filesystem::path& path);   // a list
std::unique_ptr<RowSource> open_csv_rows(const std::filesystem::path& path);    // with a header
std::unique_ptr<RowSource> open_tar_rows(const std::filesystem::path& path,
                                         TarTexts texts = TarTexts::kRows);
std::unique_ptr<RowSource> open_parquet_rows(const std::filesystem::path& path);
std::unique_ptr<RowSource> open_arrow_rows(const std::filesystem::path& path);  // file or stream

// A record of a CSV file (RFC 4180). Quoted fields may hold commas, line breaks and doubled quotes.
// Lines end with LF, CRLF or CR; empty lines are skipped.
struct CsvRecord {
  std::vector<std::string> fields;
  std::int64_t line = 0;    // where it begins, from 1
  std::uint64_t begin = 0;  // the offset in the file where it begins
};

class CsvReader {
 public:
  // `line` is the line of the stream's next byte, from 1. The stream must outlive this.
  CsvReader(ByteStream& stream, std::string where, std::int64_t line = 1)
      : stream_(stream), where_(std::move(where)), line_(line) {}

  // Reads a record, up to and without its line end; false at the end of the file. Without
  // `wants_fields` the fields stay empty, which is quicker. Throws Error for an unclosed quote.
  bool next(CsvRecord& record, bool wants_fields = true);

 private:
  void skip_line_end();

  ByteStream& stream_;
  std::string where_;
  std::int64_t line_;
};

}  // namespace vlm::data
