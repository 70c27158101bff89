// A data set's questions → how good the answers are, by the data set's own.
//
//   rows ─► samples ─► entries (the last assistant turn taken off as the wanted answer) ─►
//   run_batch ─► rows ─► scores (data/metrics)
//
// An answer counts as correct when it equals the wanted one but for case and surrounding space.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "infer/items/entry_source.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// One entry a row, called by its number, with the column "answer". A row that can't be read, or
// doesn't end with an assistant turn, is an error of its own. Throws Error for a file that can't be
// read, or holds nothing.
std::unique_ptr<EntrySource> open_evaluation_entries(const std::vector<data::DataFile>& files);

// {"accuracy", "correct", "total", "errors"} over the rows of a file, and a value for each of
// `metrics` (data::metric_names()). Rows with an error count as wrong.
OrderedJson score_rows(const std::filesystem::path& rows,
                       const std::vector<std::string>& metrics = {});

}  // namespace vlm::infer
