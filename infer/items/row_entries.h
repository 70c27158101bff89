// The rows of data files as entries: all kinds that finetune reads (data/formats/row_source.h).
//
// Opening a file reads its rows once, for their ids, columns and what they say of their media; of a
// table it reads no bytes of pictures, if the file's layout allows it. A row is parsed again when
// it is asked for. Rows without an id are called by their place: "rows.jsonl:12".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/formats/row_source.h"
#include "infer/items/entry_source.h"

namespace vlm::infer {

// Finds ids that are given twice, over all files of a run.
class IdCheck {
 public:
  void add(const std::string& id, const data::RowSource& rows, std::int64_t index);
  // Throws Error naming both places. The rows must still be there.
  void check();

 private:
  struct Place {
    std::uint64_t digest;
    std::uint32_t source;
    std::int64_t row;
  };
  std::vector<const data::RowSource*> sources_;
  std::vector<Place> places_;
};

// A row that can't be read is an error of its own. `shown` stands for the path in names of rows.
// Throws Error for what is wrong with the whole file, and when no row can be read.
std::unique_ptr<EntrySource> open_row_entries(const std::string& path, const std::string& shown,
                                              const RowOptions& options, IdCheck& ids);

}  // namespace vlm::infer
