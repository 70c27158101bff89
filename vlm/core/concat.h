// Joins values into one string: concat("got ", n, " of ", total).
//
// For messages and names only; numbers print as std::ostream prints them, so it is not a
// serializer. (g++ 12 has no std::format.)
#pragma once

#include <sstream>
#include <string>

namespace vlm {

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// "a, b, c" for any range of printable values.
template <typename Range>
std::string join(const Range& values, const std::string& separator = ", ") {
  std::ostringstream out;
  bool first = true;
  for (const auto& value : values) {
    if (!first) out << separator;
    out << value;
    first = false;
  }
  return out.str();
}

}  // namespace vlm
