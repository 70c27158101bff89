// A data set's questions → the share of answers that equal the data set's own.
//
//   samples ─► items (the last assistant turn taken off as the wanted answer) ─► run_batch ─► rows
//   ─► score
//
// An answer is right when it equals the wanted one but for case and surrounding space.
#pragma once

#include <filesystem>
#include <vector>

#include "data/dataset.h"
#include "infer/batch/batch_runner.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// One item a sample, its row with the columns "path" (of the first picture), "question" and
// "answer". Throws Error for a sample that doesn't end with an assistant turn.
std::vector<BatchItem> make_evaluation_items(const data::Dataset& dataset);

// {"accuracy", "correct", "total", "errors"} over the rows of a file; rows with an error count as
// wrong.
OrderedJson score_rows(const std::filesystem::path& rows);

// Equal but for ASCII case and surrounding white space.
bool is_same_answer(const std::string& given, const std::string& wanted);

}  // namespace vlm::infer
