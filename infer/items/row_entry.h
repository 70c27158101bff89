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

// The row's own id; "" when it has none. Throws Error naming the column for what can't be an id,
// and for a column that was asked for and isn't there.
std::string read_row_id(const data::Row& row, const RowOptions& options);

// Throws Error naming the row for what is malformed, and for a row of nothing. The entry's id is
// left open.
Entry read_row(const data::Row& row, const OrderedJson& outline, const RowOptions& options);

// Rows of a table that are read together to see whether they show the same pictures, whose bytes
// nobody reads before.
inline constexpr std::int64_t kComparedRows = 8;

// The row without the bytes of pictures.
data::Row outline_row(const data::RowSource& rows, std::int64_t index);

// What rows are told by before they are read.
struct RowMention {
  std::uint64_t media = 0;  // a digest of what they say of their media, which need not be there
  bool has_video = false;
  bool asks = false;
  std::vector<std::string> columns = {};  // that its entry has
};

RowMention mention_of(const data::Row& row, const RowOptions& options);

}  // namespace vlm::infer
