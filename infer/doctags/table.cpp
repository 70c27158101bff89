#include "infer/doctags/table.h"

#include <algorithm>

namespace vlm::infer {

void DocTable::add_slot(std::string kind) {
  if (!is_row_open_) rows_.emplace_back();
  is_row_open_ = true;
  rows_.back().push_back({.kind = std::move(kind), .text = {}});
}

void DocTable::end_row() {
  if (!is_row_open_) rows_.emplace_back();  // an empty one
  is_row_open_ = false;
}

void DocTable::add_text(std::string_view text) {
  if (!is_row_open_) add_slot("fcel");
  rows_.back().back().text += text;
}

std::size_t DocTable::width() const {
  std::size_t most = 0;
  for (const auto& row : rows_) most = std::max(most, row.size());
  return most;
}

std::string DocTable::kind(Place place) const {
  const auto& row = rows_[place.row];
  if (place.column >= row.size()) return "ecel";
  const TableSlot& slot = row[place.column];
  const bool has_text = slot.text.find_first_not_of(" \t\r\n") != std::string::npos;
  const bool continues = slot.kind == "lcel" || slot.kind == "ucel" || slot.kind == "xcel";
  return continues && has_text ? "fcel" : slot.kind;
}

// A continuation that has nothing to continue is a cell of its own.
DocTable::Place DocTable::origin(Place place) const {
  for (;;) {
    const std::string found = kind(place);
    if ((found == "lcel" || found == "xcel") && place.column > 0) {
      --place.column;
    } else if ((found == "ucel" || found == "xcel") && place.row > 0) {
      --place.row;
    } else {
      return place;
    }
  }
}

std::vector<std::vector<TableCell>> DocTable::cells() const {
  std::vector<std::vector<TableCell>> result(rows_.size());
  const std::size_t columns = width();
  const auto covers = [this](Place cell, Place place) {
    const Place found = origin(place);
    return found.row == cell.row && found.column == cell.column;
  };
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    for (std::size_t column = 0; column < columns; ++column) {
      const Place place{row, column};
      if (!covers(place, place)) continue;
      const std::string what = kind(place);
      TableCell cell;
      if (what == "ched") cell.scope = "col";
      if (what == "rhed") cell.scope = "row";
      if (what == "srow") cell.scope = "rowgroup";
      if (column < rows_[row].size()) cell.text = rows_[row][column].text;
      while (column + cell.columns < columns && covers(place, {row, column + cell.columns})) {
        ++cell.columns;
      }
      while (row + cell.rows < rows_.size() && covers(place, {row + cell.rows, column})) {
        ++cell.rows;
      }
      result[row].push_back(std::move(cell));
    }
  }
  return result;
}

std::vector<std::vector<std::string>> DocTable::grid() const {
  std::vector<std::vector<std::string>> texts(rows_.size());
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    for (std::size_t column = 0; column < width(); ++column) {
      const Place from = origin({row, column});
      const auto& slots = rows_[from.row];
      texts[row].push_back(from.column < slots.size() ? slots[from.column].text : "");
    }
  }
  return texts;
}

}  // namespace vlm::infer
