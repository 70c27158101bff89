// Command-line options for reading rows of data files. They mean what the keys of the same names
// mean in a training config.
#pragma once

#include <string>
#include <vector>

#include "infer/items/entry_source.h"

namespace CLI {
class App;
}

namespace vlm::infer {

class RowFlags {
 public:
  // `has_ids`: also declares --id-column.
  void declare(CLI::App& command, bool has_ids);

  // The options that were given.
  RowOptions options() const;

 private:
  RowOptions rows_;
  std::vector<std::string> field_map_;
};

}  // namespace vlm::infer
