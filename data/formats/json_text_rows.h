// What JSONL files and JSON lists have in common: each row is a piece of JSON text in the file.
#pragma once

#include <string>
#include <utility>

#include "data/formats/file_bytes.h"
#include "data/formats/row_source.h"

namespace vlm::data {

class JsonTextRows : public RowSource {
 public:
  Row at(std::int64_t index) const override {
    Row row{.columns = {}, .where = where(index), .folder = folder_};
    row.columns = parse_json(text(index), row.where, Numbers::kAsWritten);
    return row;
  }

  OrderedJson outline(std::int64_t index) const override {
    return parse_ordered_json(text(index), where(index), Numbers::kAsWritten);
  }

 protected:
  explicit JsonTextRows(const std::filesystem::path& path)
      : path_(path.string()), folder_(path.parent_path()), file_(path_) {}

  // The row as it is in the file. Throws Error when it can't be read.
  virtual std::string text(std::int64_t index) const = 0;

  const std::string path_;
  const std::filesystem::path folder_;
  const FileBytes file_;
};

}  // namespace vlm::data
