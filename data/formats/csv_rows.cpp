// CSV with a header: every column is text.
#include <algorithm>

#include "data/formats/mapped_file.h"
#include "data/formats/row_source.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

class CsvRows : public RowSource {
 public:
  explicit CsvRows(const std::filesystem::path& path)
      : path_(path.string()), folder_(path.parent_path()), file_(path_) {
    CsvReader reader(file_.text(), path_);
    CsvRecord record;
    if (!reader.next(record)) return;
    header_ = record.fields;
    for (auto name = header_.begin(); name != header_.end(); ++name) {
      if (std::find(header_.begin(), name, *name) == name) continue;
      throw Error({.what = "column given twice",
                   .where = concat(path_, ":", record.line),
                   .got = concat("'", *name, "'")});
    }
    while (reader.next(record, /*wants_fields=*/false)) {
      records_.push_back({record.begin, static_cast<std::uint32_t>(record.line)});
    }
    records_.shrink_to_fit();
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(records_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ":", records_.at(static_cast<std::size_t>(index)).line);
  }

  Row at(std::int64_t index) const override {
    const Place& place = records_.at(static_cast<std::size_t>(index));
    CsvReader reader(file_.text(), path_, place.begin, place.line);
    CsvRecord record;
    reader.next(record);
    Row row{.columns = Json::object(), .where = where(index), .folder = folder_};
    if (record.fields.size() != header_.size()) {
      throw Error({.what = "wrong number of fields",
                   .where = row.where,
                   .got = concat(record.fields.size()),
                   .wanted = concat(header_.size())});
    }
    for (std::size_t i = 0; i < header_.size(); ++i) {
      row.columns[header_[i]] = std::move(record.fields[i]);
    }
    return row;
  }

 private:
  struct Place {
    std::uint64_t begin;
    std::uint32_t line;
  };

  std::string path_;
  std::filesystem::path folder_;
  MappedFile file_;
  std::vector<std::string> header_;
  std::vector<Place> records_;
};

}  // namespace

CsvReader::CsvReader(std::string_view text, std::string where, std::size_t begin, std::int64_t line)
    : text_(text), where_(std::move(where)), at_(begin), line_(line) {
  if (at_ == 0 && text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
}

bool CsvReader::next(CsvRecord& record, bool wants_fields) {
  for (; at_ < text_.size() && (text_[at_] == '\n' || text_[at_] == '\r'); ++at_) {
    if (text_[at_] == '\n') ++line_;
  }
  if (at_ >= text_.size()) return false;
  record = {.fields = {}, .line = line_, .begin = at_};
  std::string field;
  bool is_quoted = false, is_start = true;  // of a field
  const auto add = [&](char c) {
    if (wants_fields) field += c;
    is_start = false;
  };
  for (; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (c == '\n') ++line_;
    if (is_quoted && c != '"') {
      add(c);
    } else if (is_quoted && at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
      add(text_[++at_]);
    } else if (is_quoted) {
      is_quoted = false;
    } else if (c == '"' && is_start) {  // further on it is a character like others: 5" wide
      is_quoted = true;
      is_start = false;
    } else if (c == ',') {
      if (wants_fields) record.fields.push_back(std::move(field));
      field.clear();
      is_start = true;
    } else if (c == '\n') {
      ++at_;
      break;
    } else if (c != '\r') {
      add(c);
    }
  }
  if (is_quoted) {
    throw Error({.what = "quote is not closed", .where = concat(where_, ":", record.line)});
  }
  if (wants_fields) record.fields.push_back(std::move(field));
  return true;
}

std::unique_ptr<RowSource> open_csv_rows(const std::filesystem::path& path) {
  return std::make_unique<CsvRows>(path);
}

}  // namespace vlm::data
