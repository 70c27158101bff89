// Rows → conversations: what the columns of the ecosystem's data sets mean.
//
//   messages           "messages": Hugging Face's (parts text, image, video) and OpenAI's
//   (image_url) prompt_completion  "prompt" and "completion": TRL's, texts or lists of messages
//   conversations      "conversations": ShareGPT's and LLaVA's {"from": "human" | "gpt", "value"}
//   query_response     a question (or DataOptions::prompt) and an answer, a column each
//
// Pictures are the column "images" (or "image", "file_names", "file_name"), those that the parts
// name themselves, or the members of a tar. Columns that no format reads are ignored.
// docs/finetuning.md describes them all.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/formats/row_source.h"

namespace vlm::data {

// Values of dataset_format: "auto" and the formats.
const std::vector<std::string>& row_formats();

// Our names of columns, which a field_map may point elsewhere.
const std::vector<std::string>& column_names();

// The row's format, by its columns. Throws Error for a row of none.
std::string detect_format(const Row& row, const DataOptions& options);

// Throws Error naming the row for what is malformed.
Sample parse_row(const Row& row, const DataOptions& options);

}  // namespace vlm::data
