// Small outputs for tests: ten items, rows of a few bytes.
#pragma once

#include <string>

#include "infer/batch/row_log.h"

namespace vlm::infer {

inline RowLogOptions ten_items(const std::filesystem::path& output,
                               const OrderedJson& options = {{"--prompt", "a"}}) {
  return {.output = output, .header = {.items = 10, .shard_items = 10, .options = options}};
}

inline FinishedRow row(std::int64_t ordinal, bool is_error = false) {
  return {ordinal, "row " + std::to_string(ordinal) + (is_error ? " failed\n" : "\n"), is_error};
}

}  // namespace vlm::infer
