// Rows → conversations: what the columns of the ecosystem's data sets mean.
//
//   messages           "messages": Hugging Face's and OpenAI's (messages.h)
//   prompt_completion  "prompt" and "completion": TRL's, texts or lists of messages
//   conversations      "conversations": ShareGPT's and LLaVA's {"from": "human" | "gpt", "value"}
//   texts              "texts": the Cauldron's {"user", "assistant"}
//   query_response     a question (or DataOptions::prompt) and an answer, in columns (question.h)
//
// Pictures are the column "images" (or one of its other names), those that the parts name
// themselves, or the members of a tar. A column that would change what is asked or learned and that
// the format doesn't read is an Error (columns.h); others are ignored. docs/finetuning.md has a
// table of them all.
#pragma once

#include <string>
#include <vector>

#include "data/conversations/data_options.h"
#include "data/conversations/sample.h"
#include "data/formats/row_source.h"
#include "vlm/core/json.h"

namespace vlm::data {

// Values of dataset_format: "auto" and the formats.
const std::vector<std::string>& row_formats();

// The row's format, by its columns. Throws Error for a row of none.
std::string detect_format(const Row& row, const DataOptions& options);

// Throws Error naming the row for what is malformed.
Sample parse_row(const Row& row, const DataOptions& options);

}  // namespace vlm::data
