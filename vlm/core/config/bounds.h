// Checks of one value of the command line: its text → what is wrong with it, or nothing.
//
// For CLI11's check(), which puts the option's name in front of the message: "got -3, wanted 0 or
// more". Text that is no number, nan and inf are refused too.
#pragma once

#include <functional>
#include <string>

namespace vlm {

using ValueCheck = std::function<std::string(const std::string&)>;

ValueCheck at_least(double least);
ValueCheck above(double bound);
ValueCheck between(double least, double most);  // both bounds included

// For names and paths: an empty one usually comes from a shell variable that isn't set.
ValueCheck not_empty();

}  // namespace vlm
