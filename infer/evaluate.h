// A data set's questions → the share of answers that equal the data set's own.
//
//   samples ─► entries (the last assistant turn taken off as the wanted answer) ─► run_batch ─►
//   rows ─► score
//
// An answer is right when it equals the wanted one but for case and surrounding space.
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"
#include "infer/items/entry_source.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// One entry a sample, called by its number, with the column "answer". Throws Error for a sample
// that doesn't end with an assistant turn.
std::unique_ptr<EntrySource> make_evaluation_entries(std::unique_ptr<data::Dataset> dataset);

// {"accuracy", "correct", "total", "errors"} over the rows of a file; rows with an error count as
// wrong.
OrderedJson score_rows(const std::filesystem::path& rows);

// Equal but for ASCII case and surrounding white space.
bool is_same_answer(const std::string& given, const std::string& wanted);

}  // namespace vlm::infer
