// Files → rows: objects with named columns, whatever the file is.
//
//   file or folder ─► open_rows ─► RowSource: size(), at(i)
//
// What a file is, is told by its content: a tar, a JSON list, JSONL; CSV by its suffix. A folder is
// its metadata.jsonl or metadata.csv. Opening reads the file once to index where rows begin; a row
// is parsed when it is asked for. Files are read piece by piece (file_bytes.h), never as a whole.
// Text may begin with a byte order mark and end its lines with LF, CRLF or CR.
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
  // Pictures that came with the row in a tar, in their order; then references name these alone.
  std::vector<MediaRef> members = {};
};

class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual std::int64_t size() const = 0;
  // Thread-safe. Throws Error naming file and line for a row that can't be read.
  virtual Row at(std::int64_t index) const = 0;
  virtual std::string where(std::int64_t index) const = 0;
  // What can be shown of the row: its columns in the file's order, without the bytes of pictures.
  // Quicker than `at` where those are large: they aren't read. Throws as `at`.
  virtual OrderedJson outline(std::int64_t index) const = 0;
  // Tells these rows from all others. The content of pictures doesn't count.
  virtual void add_to(ListDigest& digest) const = 0;
  // What a row is called that has no name of its own.
  virtual std::string name(std::int64_t index) const { return where(index); }
  // Pictures of kinds that can't be read, which are in no row.
  virtual KindCounts left_out() const { return {}; }
  // The file's blocks in order; empty where any row is as quick to read as its neighbour.
  virtual std::vector<RowBlock> blocks() const { return {}; }
};

// True for names that end like those of data files: .jsonl, .csv, .parquet, …
bool has_rows_suffix(const std::filesystem::path& path);
// True for a folder with metadata.jsonl or metadata.csv.
bool is_rows_folder(const std::filesystem::path& path);

// Samples of a tar that have no picture: rows, or notes beside them.
enum class TarTexts { kRows, kNotes };

// Throws Error for a file that can't be read, or whose kind is unknown.
std::unique_ptr<RowSource> open_rows(const std::filesystem::path& path,
                                     TarTexts texts = TarTexts::kRows);

// The kinds one by one.
std::unique_ptr<RowSource> open_jsonl_rows(const std::filesystem::path& path);  // one a line
std::unique_ptr<RowSource> open_json_rows(const std::filesystem::path& path);   // a list
std::unique_ptr<RowSource> open_csv_rows(const std::filesystem::path& path);    // with a header
std::unique_ptr<RowSource> open_tar_rows(const std::filesystem::path& path,
                                         TarTexts texts = TarTexts::kRows);
std::unique_ptr<RowSource> open_parquet_rows(const std::filesystem::path& path);
std::unique_ptr<RowSource> open_arrow_rows(const std::filesystem::path& path);  // file or stream

// A record of RFC 4180 and the line it begins in: quoted fields may hold commas, line breaks and
// doubled quotes. Lines end with LF, CRLF or CR; empty ones are passed over.
struct CsvRecord {
  std::vector<std::string> fields;
  std::int64_t line = 0;
  std::uint64_t begin = 0;  // in the file
};

class CsvReader {
 public:
  // The stream stands in line `line` (from 1) and must outlive this.
  CsvReader(ByteStream& stream, std::string where, std::int64_t line = 1)
      : stream_(stream), where_(std::move(where)), line_(line) {}

  // False at the end. Without `wants_fields` the record's fields stay empty, which is quicker.
  // The stream then stands behind the record, in front of its end of line. Throws Error for an
  // unclosed quote.
  bool next(CsvRecord& record, bool wants_fields = true);

 private:
  void skip_line_end();

  ByteStream& stream_;
  std::string where_;
  std::int64_t line_;
};

}  // namespace vlm::data
