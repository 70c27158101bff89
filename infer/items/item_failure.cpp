#include "infer/items/item_failure.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>

#include "vlm/io/error_text.h"

namespace vlm::infer {

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) ||
      dynamic_cast<const c10::OutOfMemoryError*>(&error)) {
    return true;
  }
  // LibTorch's allocator for the processor has no type of its own for it.
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  return torch && std::string(torch->what_without_backtrace()).find("can't allocate memory") !=
                      std::string::npos;
}

std::string failure_text(const std::exception& error) {
  std::string text = error_text(error);
  if (dynamic_cast<const std::bad_alloc*>(&error)) text = "there is too little memory for it";
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "it failed without a reason" : text;
}

}  // namespace vlm::infer
