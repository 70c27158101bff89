// CSV with a header: every column is text.
#include <algorithm>

#include "data/formats/file_bytes.h"
#include "data/formats/row_source.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::data {
namespace {

void check_text(const std::string& text, const std::string& where) {
  check_no_nul(text, where);
  if (is_valid_utf8(text)) return;
  throw Error({.what = "the text is not UTF-8",
               .where = where,
               .hint = "convert the file, e.g. iconv -f LATIN1 -t UTF-8"});
}

class CsvRows : public RowSource {
 public:
  explicit CsvRows(const std::filesystem::path& path)
      : path_(path.string()), folder_(path.parent_path()), file_(path_) {
    ByteStream stream(file_);
    skip_mark(stream, path_);
    CsvReader reader(stream, path_);
    CsvRecord record;
    if (!reader.next(record)) return;
    header_ = record.fields;
    for (const std::string& name : header_) check_text(name, concat(path_, ":", record.line));
    for (auto name = header_.begin(); name != header_.end(); ++name) {
      if (std::find(header_.begin(), name, *name) == name) continue;
      throw Error({.what = "column given twice",
                   .where = concat(path_, ":", record.line),
                   .got = concat("'", *name, "'")});
    }
    while (reader.next(record, /*wants_fields=*/false)) {
      add(record, stream.at() - record.begin);
    }
    records_.shrink_to_fit();
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(records_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ":", records_.at(static_cast<std::size_t>(index)).line);
  }

  Row at(std::int64_t index) const override {
    return {.columns = columns<Json>(index), .where = where(index), .folder = folder_};
  }

  OrderedJson outline(std::int64_t index) const override { return columns<OrderedJson>(index); }

  void add_to(ListDigest& digest) const override { add_bytes(file_, digest); }

 private:
  template <typename AnyJson>
  AnyJson columns(std::int64_t index) const {
    const Place& place = records_.at(static_cast<std::size_t>(index));
    ByteStream stream(file_, place.begin, place.size);
    CsvReader reader(stream, path_, place.line);
    CsvRecord record;
    reader.next(record);
    if (record.fields.size() != header_.size()) {
      throw Error({.what = "wrong number of fields",
                   .where = where(index),
                   .got = concat(record.fields.size()),
                   .wanted = concat(header_.size())});
    }
    AnyJson columns = AnyJson::object();
    for (std::size_t i = 0; i < header_.size(); ++i) {
      check_text(record.fields[i], concat(where(index), ": ", header_[i]));
      columns[header_[i]] = std::move(record.fields[i]);
    }
    return columns;
  }

  struct Place {
    std::uint64_t begin;
    std::uint32_t size, line;
  };

  void add(const CsvRecord& record, std::uint64_t size) {
    if (size > UINT32_MAX) {
      throw Error({.what = "the record is too long",
                   .where = concat(path_, ":", record.line),
                   .got = concat(size, " bytes"),
                   .wanted = concat("at most ", UINT32_MAX)});
    }
    records_.push_back(
        {record.begin, static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(record.line)});
  }

  std::string path_;
  std::filesystem::path folder_;
  FileBytes file_;
  std::vector<std::string> header_;
  std::vector<Place> records_;
};

}  // namespace

bool CsvReader::next(CsvRecord& record, bool wants_fields) {
  while (!stream_.at_end() && (stream_.peek() == '\n' || stream_.peek() == '\r')) skip_line_end();
  if (stream_.at_end()) return false;
  record = {.fields = {}, .line = line_, .begin = stream_.at()};
  std::string field;
  bool is_quoted = false, is_start = true;  // of a field
  const auto add = [&](char c) {
    if (wants_fields) field += c;
    is_start = false;
  };
  while (!stream_.at_end()) {
    const char c = stream_.peek();
    if (!is_quoted && (c == '\n' || c == '\r')) break;
    stream_.skip(1);
    if (c == '\n') ++line_;
    if (is_quoted && c != '"') {
      add(c);
    } else if (is_quoted && !stream_.at_end() && stream_.peek() == '"') {
      stream_.skip(1);
      add('"');
    } else if (is_quoted) {
      is_quoted = false;
    } else if (c == '"' && is_start) {  // further on it is a character like others: 5" wide
      is_quoted = true;
      is_start = false;
    } else if (c == ',') {
      if (wants_fields) record.fields.push_back(std::move(field));
      field.clear();
      is_start = true;
    } else {
      add(c);
    }
  }
  if (is_quoted) {
    throw Error({.what = "quote is not closed", .where = concat(where_, ":", record.line)});
  }
  if (wants_fields) record.fields.push_back(std::move(field));
  return true;
}

// LF, CRLF or a lone CR.
void CsvReader::skip_line_end() {
  const bool is_return = stream_.peek() == '\r';
  stream_.skip(1);
  if (is_return && !stream_.at_end() && stream_.peek() == '\n') stream_.skip(1);
  ++line_;
}

std::unique_ptr<RowSource> open_csv_rows(const std::filesystem::path& path) {
  return std::make_unique<CsvRows>(path);
}

}  // namespace vlm::data
