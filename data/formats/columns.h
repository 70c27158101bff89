// The columns of one row, by our names for them.
#pragma once

#include <string>

#include "data/dataset.h"
#include "data/formats/row_source.h"

namespace vlm::data {

class Columns {
 public:
  // Both must outlive this.
  Columns(const Row& row, const DataOptions& options) : row_(row), options_(options) {}

  // The column that field_map gives for `name` or, without one, the first of its usual names that
  // is there. Null for none; a null value counts as none. Throws Error when a mapped column is
  // missing.
  const Json* find(const std::string& name) const;

  // The same as text: strings, numbers, or the first of a list of these. Null counts as none.
  std::string text(const std::string& name) const;

  const Row& row() const { return row_; }
  const DataOptions& options() const { return options_; }

  // An Error about this row.
  [[noreturn]] void fail(const std::string& what, const Json& got, const std::string& wanted) const;

 private:
  const Json* value_of(const std::string& column) const;

  const Row& row_;
  const DataOptions& options_;
};

// A string as it is, a number as it is written. Throws Error naming `where` otherwise.
std::string text_of(const Json& value, const std::string& where);

}  // namespace vlm::data
