// Values of rows → the types of the columns that hold all of them.
//
//   {"n": 1, "a": "x"}, {"n": 2.5, "a": ["y"]} ─► widen ─► n: number, a: list of text
//
// The types follow from which values there are, not from their order:
//   - whole numbers and others: number; whole ones that a double would round beside others: text
//   - a value and a list: list, where the value is a list of one
//   - values that have nothing in common: text; what isn't text is written as JSON
//   - objects: the fields of all of them. Those with more than 1,000 fields, or without any, or
//   with
//     a field without a name, and what is nested deeper than 16 levels: text
#pragma once

#include "data/tables/table_writer.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// Makes the type one that holds the value, too.
void widen(data::ColumnType& type, const OrderedJson& value);

// The same for each column of a row; those that are new come behind the others, however many.
void widen_columns(data::ColumnType& row, const OrderedJson& values);

// The type once all values were seen: text where nothing else is known.
data::ColumnType settled(data::ColumnType type);

}  // namespace vlm::infer
