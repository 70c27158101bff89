// The rows of data files as entries: all kinds that finetune reads (data/formats/row_source.h).
//
// Opening a file reads all rows once, for their ids, columns and references to media; from a table
// without the bytes of pictures, where the file's layout allows it. A row is parsed again when its
// entry is asked for. The id of a row without one is its place: "rows.jsonl:12".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/formats/row_source.h"
#include "infer/items/entry_source.h"

namespace vlm::infer {

// Finds ids that occur twice in the files of a run.
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

// A row that can't be read becomes an entry with an error. `shown` replaces the path in ids made
// from places. Throws Error when the file is broken as a whole or no row can be read.
std::unique_ptr<EntrySource> open_row_entries(const std::string& path, const std::string& shown,
                                              const RowOptions& options, IdCheck& ids);

}  // namespace vlm::infer
