// Rows → conversations, for the layouts that data sets commonly have.
//
//   messages           "messages": Hugging Face's and OpenAI's (messages.h)
//   prompt_completion  "prompt" and "completion": TRL's, texts or lists of messages
//   conversations      "conversations": ShareGPT's and LLaVA's {"from": "human" | "gpt", "value"}
//   texts              "texts": the Cauldron's {"user", "assistant"}
//   query_response     a question (or DataOptions::prompt) and an answer, in columns (question.h)
//
// Pictures come from the column "images" (or another usual name of it), from the parts of messages,
// or from the tar that holds the row. A usual column that the format doesn't read and that would
// change what is asked or learned is an Error (columns.h); unknown columns are ignored.
// docs/finetuning.md lists all layouts.
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

// Throws Error when the row is not an object.
void check_row(const Row& row);

// The row's format, as its columns tell. Throws Error when they fit no format.
std::string detect_format(const Row& row, const DataOptions& options);

// Throws Error naming the row when it is malformed.
Sample parse_row(const Row& row, const DataOptions& options);

// Removes the last turn, with its media.
void drop_last_turn(Sample& sample);

// What a row asks, for a model to answer.
struct RowRequest {
  // Ends with a user turn. Without messages the row asks nothing and has at most media.
  Sample sample;
  // The question column that the messages were made from; none when the row has a conversation.
  std::optional<std::string> question = {};
};

// Reads the same columns as parse_row, without the answer: the last assistant turn of
// conversations, texts and completions is removed. `clips_first`: the media of a question column
// are shown in the order clips, pictures. Throws Error naming the row.
RowRequest parse_request(const Row& row, const DataOptions& options, bool clips_first = false);

}  // namespace vlm::data
