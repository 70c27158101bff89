// What the columns of a row ask: one text out of the columns that well-known layouts spread it
// over, line by line.
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

// Nothing when no column asks anything, although there may be context and choices: these then stand
// around `prompt`, when it is given. Throws Error naming the column for what is malformed.
std::optional<std::string> ask_columns(const Columns& columns, const std::string& prompt = "");

struct Answers {
  std::string learned;
  std::vector<std::string> all = {};  // every right one, where the row has a list of them
};

// The response: a text, a number (with choices the place of one, from 0), an object with "answer",
// "text" or "raw" (VQAv2, SQuAD, COCO), or a list of these, of which the first is learned. A list
// "answers" may stand beside it. Throws Error when there is none.
Answers read_answers(const Columns& columns);

}  // namespace vlm::data
