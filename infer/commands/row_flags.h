// Options of the command line that say how rows of data files are read: finetune's keys.
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
  // `has_ids`: with --id-column.
  void declare(CLI::App& command, bool has_ids);

  // What was given.
  RowOptions options() const;

 private:
  RowOptions rows_;
  std::vector<std::string> field_map_;
};

}  // namespace vlm::infer
