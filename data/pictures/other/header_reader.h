// Reads the header of a picture file from its start: binary numbers, lines and words.
//
// Every function advances past what it read, and throws the format's Error when the file ends too
// early or there is no number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "data/pictures/decoder.h"

namespace vlm::data {

class HeaderReader {
 public:
  HeaderReader(const PictureSource& source, std::string format)
      : source_(source), format_(std::move(format)) {}

  std::size_t at() const { return at_; }
  void go_to(std::size_t at);
  std::string_view read_bytes(std::size_t size);

  std::uint32_t big_endian(int bytes);
  std::uint32_t little_endian(int bytes);

  // The text up to the next `end`; advances past it.
  std::string_view until(char end);
  // The next word, after white space and comments (from # to the end of the line).
  std::string_view word();

  // The next digit, 0 to 9, after white space and comments.
  std::int64_t digit();

  // The number in a word of up to nine digits.
  std::int64_t number(std::string_view text) const;

 private:
  void skip_space();

  const PictureSource& source_;
  std::string format_;
  std::size_t at_ = 0;
};

}  // namespace vlm::data
