// `vlm evaluate`: asks the questions of a data set and compares the answers with its answers.
//
//   rows ─► samples ─► entries (without the last assistant turn, which is the wanted answer) ─►
//   run_batch ─► rows ─► scores (data/metrics)
//
// An answer is correct when it equals the wanted one; case and surrounding space don't count.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "infer/items/entry_source.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// One entry for each row, with the row's number as its id and a column "answer". A row that can't
// be read, or doesn't end with an assistant turn, becomes an entry with an error. Throws Error for
// a file that can't be read or is empty.
std::unique_ptr<EntrySource> open_evaluation_entries(const std::vector<data::DataFile>& files);

// {"accuracy", "correct", "total", "errors"} over the rows of a file, and a value for each of
// `metrics` (data::metric_names()). Rows with an error count as wrong.
OrderedJson score_rows(const std::filesystem::path& rows,
                       const std::vector<std::string>& metrics = {});

}  // namespace vlm::infer
