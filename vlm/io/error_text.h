// The message of any exception, without the C++ backtrace that LibTorch adds.
//
// For places that catch all exceptions: an item's row, the end of the program.
#pragma once

#include <exception>
#include <string>

namespace vlm {

std::string error_text(const std::exception& error);

}  // namespace vlm
