// Rows → a Parquet file. The interface to the shared object that also reads tables (table_file.h).
//
//   ColumnType of a row + rows as JSON objects ─► TableWriter ─► .parquet
//
// A column is null where a row lacks it. Values of another type are converted: a single value for a
// list column becomes a list of one, and any value for a text column becomes its JSON. Errors are
// std::runtime_error: the shared object knows no other part of the program.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace vlm::data {

struct ColumnType {
  enum class Kind { kUnknown, kFlag, kInteger, kNumber, kText, kList, kObject };

  Kind kind = Kind::kUnknown;  // kUnknown is written as text
  bool is_large = false;       // has whole numbers that a double can't hold exactly
  // Of an object its fields in their order; of a list one part without a name, its items.
  std::vector<std::pair<std::string, ColumnType>> parts = {};

  bool operator==(const ColumnType&) const = default;
};

// Texts in the file's metadata, by name.
using TableNotes = std::map<std::string, std::string>;

class TableWriter {
 public:
  virtual ~TableWriter() = default;
  // Fields that the type doesn't have are left out.
  virtual void add(const nlohmann::ordered_json& row) = 0;
  // To be called once, after the last row. Without it the file can't be read.
  virtual void finish() = 0;
};

// What the shared object exports, as the C function `vlm_table_writing`.
struct TableWriting {
  // A file of this name is replaced.
  std::unique_ptr<TableWriter> (*create)(const std::string& path, const ColumnType& row,
                                         const TableNotes& notes);
  // Of a Parquet file.
  TableNotes (*read_notes)(const std::string& path);
};

}  // namespace vlm::data
