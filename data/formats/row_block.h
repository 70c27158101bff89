// Rows of a file that lie and are read together, such as a row group of a table.
#pragma once

#include <cstdint>

namespace vlm::data {

struct RowBlock {
  std::int64_t rows = 0;
  std::int64_t bytes = 0;  // about what they take in memory; 0: any row is read by itself
};

}  // namespace vlm::data
