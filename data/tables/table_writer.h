// Rows → a Parquet file, as the program sees it. What writes is the shared object that also reads
// tables (table_file.h).
//
//   ColumnType of a row + rows as JSON objects ─► TableWriter ─► .parquet
//
// Every column may be null, and is where a row lacks it. Values fit their type or are made to: a
// value that is no list becomes a list of one, and text stands for anything as JSON. Errors are
// std::runtime_error: this header is all that both sides share.
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
  bool is_large = false;       // whole numbers, of which a double would round some
  // Of an object its fields in their order; of a list one, without a name.
  std::vector<std::pair<std::string, ColumnType>> parts = {};

  bool operator==(const ColumnType&) const = default;
};

// Texts that are kept beside the rows, by name.
using TableNotes = std::map<std::string, std::string>;

class TableWriter {
 public:
  virtual ~TableWriter() = default;
  // Fields that the type doesn't have are left out.
  virtual void add(const nlohmann::ordered_json& row) = 0;
  // To be called once, when all rows are added; without it the file is none.
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
