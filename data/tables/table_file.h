// Tables on disk, as the program sees them. What reads them is a shared object of its own, opened
// when the first such file is met: Apache Arrow costs start-up, and a build may be without it.
//
//   .parquet, .arrow ─► TableFile: groups of rows ─► TableGroup: row i as a JSON object
//
// A group is a Parquet row group or an Arrow record batch: what is read and held as a whole. Bytes
// stay bytes (Json::binary); names of a ClassLabel stand in for its numbers; a missing value is
// null. Errors are std::runtime_error: this header is all that both sides share.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vlm::data {

class TableGroup {
 public:
  virtual ~TableGroup() = default;
  // Thread-safe. `index` counts from the group's first row.
  virtual nlohmann::json row(std::int64_t index) const = 0;
  // What the group holds in memory.
  virtual std::int64_t bytes() const = 0;
};

// A group before it is read: `bytes` is about what it will hold in memory.
struct TableGroupSize {
  std::int64_t rows;
  std::int64_t bytes;
};

// Values that are bytes (pictures, mostly) make the most of many tables.
enum class TableBytes { kRead, kLeftOut };

class TableFile {
 public:
  virtual ~TableFile() = default;
  // Names of the columns, in the file's order.
  virtual const std::vector<std::string>& columns() const = 0;
  // Of every group, known from the file's footer or headers alone.
  virtual const std::vector<TableGroupSize>& groups() const = 0;
  // Thread-safe. Reads the whole group. kLeftOut saves the reading of bytes where the file's layout
  // allows it (Parquet's does); they may be there or not.
  virtual std::shared_ptr<const TableGroup> read_group(std::size_t group,
                                                       TableBytes bytes) const = 0;
};

enum class TableKind { kParquet, kArrow };

// What the shared object exports, as the C function `vlm_arrow_library`.
struct ArrowLibrary {
  std::unique_ptr<TableFile> (*open)(const std::string& path, TableKind kind);
};

}  // namespace vlm::data
