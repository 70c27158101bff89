// Joins values into one string: concat("got ", n, " of ", total).
//
// For messages and names. Numbers print as std::ostream prints them in the classic locale, to 6
// digits, so it is no way to store them. (g++ 12 has no std::format.)
#pragma once

#include <array>
#include <charconv>
#include <locale>
#include <sstream>
#include <string>

namespace vlm {

// A string stream that the program's locale doesn't change: no grouping, a point before fractions.
class PlainStream : public std::ostringstream {
 public:
  PlainStream() { imbue(std::locale::classic()); }
};

template <typename... Parts>
std::string concat(const Parts&... parts) {
  PlainStream out;
  (out << ... << parts);
  return out.str();
}

// "a, b, c" for any range of printable values.
template <typename Range>
std::string join(const Range& values, const std::string& separator = ", ") {
  PlainStream out;
  bool first = true;
  for (const auto& value : values) {
    if (!first) out << separator;
    out << value;
    first = false;
  }
  return out.str();
}

// `digits` behind the point: fixed_text(3.14159, 2) is "3.14".
inline std::string fixed_text(double value, int digits) {
  std::array<char, 400> text;  // the largest number has 309 digits before the point
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value,
                                 std::chars_format::fixed, digits);
  return {text.data(), end.ptr};
}

// `digits` significant digits as printf's %g prints them: short_text(3.14159, 4) is "3.142",
// short_text(1e-9, 4) is "1e-09".
inline std::string short_text(double value, int digits) {
  std::array<char, 400> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value,
                                 std::chars_format::general, digits);
  return {text.data(), end.ptr};
}

}  // namespace vlm
