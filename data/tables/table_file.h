// The interface between the program and the shared object vlm_arrow, which reads Parquet and Arrow
// files. It is opened with the first such file, because loading Apache Arrow takes time and a build
// may be without it.
//
//   .parquet, .arrow ─► TableFile: groups of rows ─► TableGroup: row i as a JSON object
//
// A group is a Parquet row group or an Arrow record batch. Opening a file reads its footer or, of
// Arrow, the headers of its batches (in files and streams alike), and no rows. A group is read when
// a row of it is asked for, and is the least that is held in memory.
// Values: bytes are Json::binary; a ClassLabel is its name, not its number; a missing value is
// null. Errors are std::runtime_error: the shared object knows no other part of the program.
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
  // The memory that the group takes.
  virtual std::int64_t bytes() const = 0;
};

// The size of a group that isn't read yet; `bytes` is about the memory that it will take.
struct TableGroupSize {
  std::int64_t rows;
  std::int64_t bytes;
};

// Whether columns of bytes are read: pictures are most of the size of many tables.
enum class TableBytes { kRead, kLeftOut };

class TableFile {
 public:
  virtual ~TableFile() = default;
  // Names of the columns, in the file's order.
  virtual const std::vector<std::string>& columns() const = 0;
  // Of every group, known from the file's footer or headers alone.
  virtual const std::vector<TableGroupSize>& groups() const = 0;
  // Thread-safe. Reads the whole group. With kLeftOut columns of bytes are skipped in Parquet
  // files; Arrow files are read with them.
  virtual std::shared_ptr<const TableGroup> read_group(std::size_t group,
                                                       TableBytes bytes) const = 0;
};

enum class TableKind { kParquet, kArrow };

// What the shared object exports, as the C function `vlm_arrow_library`.
struct ArrowLibrary {
  std::unique_ptr<TableFile> (*open)(const std::string& path, TableKind kind);
};

}  // namespace vlm::data
