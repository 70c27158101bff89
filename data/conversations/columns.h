// Access to one row's columns by our names: query, response, images and so on.
//
// Data sets use many names for the same column. Each of our names has a list of usual names;
// field_map replaces the list by one column, or by none. No part of a question or answer is dropped
// silently: two usual columns with different values are an error, and so is a usual column that the
// row's format doesn't read (check_all_read).
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "data/conversations/data_options.h"
#include "data/conversations/sample.h"
#include "data/formats/row_source.h"
#include "vlm/core/json.h"

namespace vlm::data {

// Our names of columns: the keys of a field_map.
const std::vector<std::string>& column_names();

class Columns {
 public:
  // Both must outlive this.
  Columns(const Row& row, const DataOptions& options) : row_(row), options_(options) {}

  // The value of the column that field_map gives for `name`, else of the usual column in the row.
  // Null for none; a null value counts as none, and so does an empty one beside a filled one.
  // Throws Error when the mapped column is missing, or two usual columns differ.
  const Json* find(const std::string& name) const;

  // True when `find` would give a value that isn't empty. Never throws; doesn't mark as read.
  bool has(const std::string& name) const;

  // The name of the column that `find` would use; "" for none. Never throws.
  std::string column(const std::string& name) const;

  // The value of `find` as text: a string, a number as written, or a list of one of these; "" for
  // none.
  std::string text(const std::string& name) const;

  // Throws Error naming a usual column that has a value and was not read. kShown checks columns of
  // media, kAsked also those of questions, kLearned also those of answers.
  enum class Use { kShown, kAsked, kLearned };
  void check_all_read(Use use = Use::kLearned) const;

  const Row& row() const { return row_; }
  const DataOptions& options() const { return options_; }

  // An Error about this row.
  [[noreturn]] void fail(const std::string& what, const Json& got, const std::string& wanted) const;

 private:
  struct Found {
    std::string column;
    const Json* value;
  };

  std::vector<Found> usual(const std::string& name) const;
  Json::const_iterator column_called(const std::string& name) const;
  const Json* value_of(const std::string& column) const;
  bool is_mapped(const std::string& column) const;
  [[noreturn]] void fail_unread(const std::string& column, const Json& value,
                                const std::string& reason, const std::string& name) const;

  const Row& row_;
  const DataOptions& options_;
  mutable std::set<std::string> read_;
};

// A string as it is, a number as it is written. Throws Error naming `where` otherwise.
std::string text_of(const Json& value, const std::string& where);

}  // namespace vlm::data
