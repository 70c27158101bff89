// Bounds of a number → an expression of EBNF for the numbers between them.
//
//   integers 8 … 120 ─► "8" | "9" | [1-9] [0-9]{1,1} | "1" …
//
// A number without a bound has up to 18 digits before the point (so that 64 bits hold it) and up
// to 20 behind it, so that a model that runs away inside one ends. Beside a bound numbers have no
// exponent and up to 15 digits: then no two of them become the same double, and none is rounded
// over the bound.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace vlm::infer {

struct NumberBounds {
  std::optional<double> least, most;
  bool excludes_least = false, excludes_most = false;
};

// All of these throw Error naming `where`: for bounds that no number meets, that have too many
// digits, and for a multipleOf that can't be kept.
std::string number_to_grammar(const NumberBounds& bounds, const std::string& where);
std::string integer_to_grammar(const NumberBounds& bounds, std::optional<double> multiple_of,
                               const std::string& where);

}  // namespace vlm::infer
