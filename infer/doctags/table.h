// A table of DocTags (OTSL: a token a cell, row by row) and the cells that it means.
//
//   <ched>Name<lcel><nl><fcel>a<fcel>b<nl> ─► rows of slots ─► cells with spans, or a full grid
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace vlm::infer {

struct TableSlot {
  // fcel (filled), ecel (empty), ched, rhed (headers), srow (section of rows), or a continuation:
  // lcel of the cell to the left, ucel of the one above, xcel of both.
  std::string kind;
  std::string text;
};

struct TableCell {
  std::string text;
  std::string scope;                  // of a header: col, row or rowgroup; else empty
  std::size_t rows = 1, columns = 1;  // that it spans
};

class DocTable {
 public:
  bool is_empty() const { return rows_.empty(); }
  void add_slot(std::string kind);
  void end_row();
  // Appends to the text of the last slot; of a row that has none, a cell begins.
  void add_text(std::string_view text);

  // Cells by row, each where it begins.
  std::vector<std::vector<TableCell>> cells() const;
  // Every place of the table with the text of the cell that covers it; rows of the same length.
  std::vector<std::vector<std::string>> grid() const;

 private:
  struct Place {
    std::size_t row = 0, column = 0;
  };
  std::size_t width() const;
  // Where the cell that covers a place begins.
  Place origin(Place place) const;
  // "ecel" where a short row has no slot; a continuation that has a text is "fcel".
  std::string kind(Place place) const;

  std::vector<std::vector<TableSlot>> rows_;
  bool is_row_open_ = false;
};

}  // namespace vlm::infer
