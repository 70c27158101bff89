// Exceptions → the text of a row's "error". Whatever is thrown while one item is read, asked or
// written ends up in that item's row; the run goes on.
#pragma once

#include <exception>
#include <string>

namespace vlm::infer {

// One line, without the backtrace that LibTorch's errors carry.
std::string failure_text(const std::exception& error);

// True when memory ran out, on the CPU or on a GPU. The item may succeed when it is tried alone.
bool is_out_of_memory(const std::exception& error);

}  // namespace vlm::infer
