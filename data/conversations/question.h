// The question of a row: one text, a line for each of the columns over which well-known data sets
// spread it.
//
//   context or hint (ScienceQA, dolly, SQuAD)
//   query           (question, instruction, …)
//   input           (Alpaca's, what the instruction is about)
//   choices         "A. one", "B. two", … (ScienceQA, A-OKVQA)
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/conversations/columns.h"

namespace vlm::data {

// Nothing when no column holds a question; if `prompt` is given, it takes the place of the
// question, between context and choices. Throws Error naming a malformed column.
std::optional<std::string> ask_columns(const Columns& columns, const std::string& prompt = "");

struct Answers {
  std::string learned;
  std::vector<std::string> all = {};  // every right answer, if the row lists several
};

// The answer of a row: a text, a number (with choices an index from 0), an object with "answer",
// "text" or "raw" (VQAv2, SQuAD, COCO), or a list of these, of which the first is learned. There
// may also be a column "answers" with a list. Throws Error when there is no answer.
Answers read_answers(const Columns& columns);

}  // namespace vlm::data
