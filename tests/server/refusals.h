// What a call is refused with, as one text: "400 invalid_value n: unusable value: …".
#pragma once

#include <functional>
#include <string>

#include "infer/server/api/api_error.h"

namespace vlm::infer {

inline std::string refusal_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const ApiError& error) {
    return std::to_string(error.status()) + " " + error.code() + " " + error.what();
  }
  return "accepted";
}

}  // namespace vlm::infer
