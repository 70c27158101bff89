// The lines of a JSONL file that hold something, by index.
//
// Opening walks over the file once; 16 bytes a line stay in memory. A line ends with LF, CRLF or a
// lone CR, none of which JSON has inside of a string.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats/file_bytes.h"

namespace vlm::data {

class JsonlFile {
 public:
  // Sees each line while the file is opened; its number counts empty lines too, from 1.
  using Visit = std::function<void(std::string_view line, std::int64_t number)>;

  // Throws Error naming the file.
  explicit JsonlFile(const std::string& path, const Visit& visit = {});

  std::int64_t size() const { return static_cast<std::int64_t>(lines_.size()); }
  std::int64_t number(std::int64_t index) const { return line_at(index).number; }
  // Thread-safe. Throws Error when the file can't be read any more.
  std::string text(std::int64_t index) const;

 private:
  struct Line {
    std::uint64_t begin;
    std::uint32_t size, number;
  };

  const Line& line_at(std::int64_t index) const {
    return lines_.at(static_cast<std::size_t>(index));
  }
  void add(std::uint64_t begin, std::string_view line, std::uint32_t number);

  FileBytes file_;
  std::vector<Line> lines_;
};

}  // namespace vlm::data
