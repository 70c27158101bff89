// What Arrow returns → a value, or std::runtime_error with Arrow's message.
#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace vlm::data {

inline void check(const arrow::Status& status) {
  if (status.ok()) return;
  const auto& detail = status.detail();  // the system's reason
  throw std::runtime_error(status.message() + (detail ? ": " + detail->ToString() : ""));
}

template <typename T>
T check(arrow::Result<T> result) {
  check(result.status());
  return std::move(result).ValueUnsafe();
}

}  // namespace vlm::data
