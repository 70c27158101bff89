// Rows of a file that are read together, such as a row group of a table.
#pragma once

#include <cstdint>

namespace vlm::data {

struct RowBlock {
  std::int64_t rows = 0;
  std::int64_t bytes = 0;  // about their size in memory; 0: rows are read one by one
};

}  // namespace vlm::data
