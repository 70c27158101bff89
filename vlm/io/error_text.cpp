#include "vlm/io/error_text.h"

#include <c10/util/Exception.h>

#include <new>

namespace vlm {

std::string error_text(const std::exception& error) {
  if (const auto* of_torch = dynamic_cast<const c10::Error*>(&error)) {
    return of_torch->what_without_backtrace();
  }
  // Its own text is the name of the class.
  if (dynamic_cast<const std::bad_alloc*>(&error)) return "there is not enough memory";
  return error.what();
}

}  // namespace vlm
