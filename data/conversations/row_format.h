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

#include <optional>
#include <string>
#include <vector>

#include "data/conversations/data_options.h"
#include "data/conversations/sample.h"
#include "data/formats/row_source.h"
#include "vlm/core/json.h"

namespace vlm::data {

// Values of dataset_format: "auto" and the formats.
const std::vector<std::string>& row_formats();

// Throws Error for a row that is no object.
void check_row(const Row& row);

// The row's format, by its columns. Throws Error for a row of none.
std::string detect_format(const Row& row, const DataOptions& options);

// Throws Error naming the row for what is malformed.
Sample parse_row(const Row& row, const DataOptions& options);

// Takes the last turn off, with what it shows.
void drop_last_turn(Sample& sample);

// What a row asks, for a model to answer.
struct RowRequest {
  // Ends with a user's turn; no messages: the row asks nothing, and has media at most.
  Sample sample;
  // The question in columns that the messages are made from; none: they are a conversation of the
  // row's own.
  std::optional<std::string> question = {};
};

// Reads the columns of parse_row, but no answer: that of conversations, texts and completions,
// which have one at their end, is taken off. `clips_first`: a question in columns is asked about
// clips and then pictures. Throws Error naming the row.
RowRequest parse_request(const Row& row, const DataOptions& options, bool clips_first = false);

}  // namespace vlm::data
