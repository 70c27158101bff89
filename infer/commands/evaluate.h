// A data set's questions → how good the answers are, by the data set's own.
//
//   samples ─► entries (the last assistant turn taken off as the wanted answer) ─► run_batch ─►
//   rows ─► scores (data/metrics)
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

// One entry a sample, called by its number, with the column "answer". A sample that can't be read,
// or doesn't end with an assistant turn, is an error of its own. `files` are what the data set was
// read from.
std::unique_ptr<EntrySource> make_evaluation_entries(std::unique_ptr<data::Dataset> dataset,
                                                     std::vector<std::string> files = {});

// {"accuracy", "correct", "total", "errors"} over the rows of a file, and a value for each of
// `metrics` (data::metric_names()). Rows with an error count as wrong.
OrderedJson score_rows(const std::filesystem::path& rows,
                       const std::vector<std::string>& metrics = {});

}  // namespace vlm::infer
