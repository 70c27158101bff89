// What one item's exception says in its row. Whatever is thrown while an item is read, asked or
// written costs that row and nothing else.
#pragma once

#include <exception>
#include <string>

namespace vlm::infer {

// One line, without the backtrace that LibTorch's errors carry.
std::string failure_text(const std::exception& error);

// Memory was lacking, on the processor or on a GPU: it may work when nothing else is held.
bool is_out_of_memory(const std::exception& error);

}  // namespace vlm::infer
