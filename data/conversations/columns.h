// The columns of one row, by our names for them.
//
// Data sets of the ecosystem call the same thing by several names. Each of our names has a list of
// theirs; field_map replaces it by one column, or by none. Nothing that belongs to what is asked or
// answered is dropped because something else fits: two columns for one name that differ are an
// error, and so is a column of the list that the row's format doesn't read (check_all_read).
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

// Our names of columns, which a field_map may point elsewhere.
const std::vector<std::string>& column_names();

class Columns {
 public:
  // Both must outlive this.
  Columns(const Row& row, const DataOptions& options) : row_(row), options_(options) {}

  // The column that field_map gives for `name` or, without one, the usual one that is there. Null
  // for none; a null value counts as none, and an empty one when another column says something.
  // Throws Error when a mapped column is missing, or two usual ones differ.
  const Json* find(const std::string& name) const;

  // True when `find` would give a column that isn't empty. Throws nothing, reads nothing.
  bool has(const std::string& name) const;

  // The name of the column that `find` would give; "" for none. Throws nothing.
  std::string column(const std::string& name) const;

  // The same as text: strings, numbers as written, or a list of one of these. None is "".
  std::string text(const std::string& name) const;

  // Throws Error naming a column that wasn't read and says something: with kShown of what is shown,
  // with kAsked also of what is asked, with kLearned also of what is learned.
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
