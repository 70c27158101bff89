#include "data/pictures/other/header_reader.h"

#include <algorithm>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

constexpr std::size_t kMostDigits = 9;

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

}  // namespace

void HeaderReader::go_to(std::size_t at) {
  if (at > source_.bytes.size()) throw truncated(source_, format_);
  at_ = at;
}

std::string_view HeaderReader::read_bytes(std::size_t size) {
  if (source_.bytes.size() - at_ < size) throw truncated(source_, format_);
  at_ += size;
  return source_.bytes.substr(at_ - size, size);
}

std::uint32_t HeaderReader::big_endian(int bytes) {
  std::uint32_t value = 0;
  for (const char c : read_bytes(static_cast<std::size_t>(bytes))) {
    value = value << 8 | static_cast<std::uint8_t>(c);
  }
  return value;
}

std::uint32_t HeaderReader::little_endian(int bytes) {
  std::uint32_t value = 0;
  int shift = 0;
  for (const char c : read_bytes(static_cast<std::size_t>(bytes))) {
    value |= std::uint32_t{static_cast<std::uint8_t>(c)} << shift;
    shift += 8;
  }
  return value;
}

std::string_view HeaderReader::until(char end) {
  const std::size_t found = source_.bytes.find(end, at_);
  if (found == std::string_view::npos) throw truncated(source_, format_);
  const std::string_view text = read_bytes(found - at_);
  ++at_;
  return text;
}

void HeaderReader::skip_space() {
  const std::string_view bytes = source_.bytes;
  while (at_ < bytes.size() && (is_space(bytes[at_]) || bytes[at_] == '#')) {
    at_ = bytes[at_] == '#' ? std::min(bytes.find('\n', at_), bytes.size()) : at_ + 1;
  }
}

std::string_view HeaderReader::word() {
  skip_space();
  const std::string_view bytes = source_.bytes;
  std::size_t end = at_;
  while (end < bytes.size() && !is_space(bytes[end]) && bytes[end] != '#') ++end;
  if (end == at_) throw truncated(source_, format_);
  return read_bytes(end - at_);
}

std::int64_t HeaderReader::digit() {
  skip_space();
  return number(read_bytes(1));
}

std::int64_t HeaderReader::number(std::string_view text) const {
  std::int64_t value = 0;
  const bool is_number = !text.empty() && text.size() <= kMostDigits &&
                         std::all_of(text.begin(), text.end(), is_digit);
  if (!is_number) {
    throw corrupt(source_, format_, concat("'", text.substr(0, 20), "' in place of a number"));
  }
  for (const char c : text) value = value * 10 + (c - '0');
  return value;
}

}  // namespace vlm::data
