// What an exception says to people: any kind of it, without the C++ backtrace that LibTorch adds.
//
// For places that catch all: an item's row, the end of the program.
#pragma once

#include <exception>
#include <string>

namespace vlm {

std::string error_text(const std::exception& error);

}  // namespace vlm
