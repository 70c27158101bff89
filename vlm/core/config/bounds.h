// Checks of one value of the command line: its text → what is wrong with it, or nothing.
//
// For the parser's check(); it puts the option's name in front. Says the value and the bound, as
// errors do: "got -3, wanted 0 or more". Not a number, or nan and inf: refused too.
#pragma once

#include <functional>
#include <string>

namespace vlm {

using ValueCheck = std::function<std::string(const std::string&)>;

ValueCheck at_least(double least);
ValueCheck above(double bound);
ValueCheck between(double least, double most);  // both may be taken

// For names and paths, where an empty one is a variable that wasn't set.
ValueCheck not_empty();

}  // namespace vlm
