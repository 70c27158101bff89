// A row of a data file → an entry.
//
//   data::Row, its columns in the file's order ─► read_row ─► Entry
//
// Media, questions and conversations are read as finetune and evaluate read them
// (data/conversations/row_format.h); a row with "custom_id" and "body" is a request of OpenAI's
// batch format (openai_request.h). All other fields are columns, but for bytes.
#pragma once

#include <cstdint>
#include <string>

#include "data/formats/row_source.h"
#include "infer/items/entry_source.h"

namespace vlm::infer {

// The id in the row; "" when there is none. Throws Error naming the column for a value that can't
// be an id, and when the column of --id-column is missing.
std::string read_row_id(const data::Row& row, const RowOptions& options);

// Leaves the entry's id empty. Throws Error naming the row when it is malformed, or has neither
// media nor a question.
Entry read_row(const data::Row& row, const OrderedJson& outline, const RowOptions& options);

// Pictures in a table are compared only when their bytes are read, for this many rows at a time.
inline constexpr std::int64_t kComparedRows = 8;

// The row without the bytes of pictures.
data::Row outline_row(const data::RowSource& rows, std::int64_t index);

// What is known of a row without reading its pictures.
struct RowMention {
  std::uint64_t media = 0;  // digest of the references to media; the files needn't exist
  bool has_video = false;
  bool asks = false;
  bool has_rule = false;                  // of what the answer must look like
  std::vector<std::string> columns = {};  // of its entry
};

RowMention mention_of(const data::Row& row, const RowOptions& options);

}  // namespace vlm::infer
