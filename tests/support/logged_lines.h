// What is logged while this lives, a line each.
#pragma once

#include <optional>
#include <string>

#include "vlm/core/log.h"

class LoggedLines {
 public:
  // Of one level, or of all.
  explicit LoggedLines(std::optional<vlm::LogLevel> wanted = {}) {
    vlm::set_log_sink([this, wanted](vlm::LogLevel level, const std::string& message) {
      if (!wanted || level == *wanted) text += message + "\n";
    });
  }
  ~LoggedLines() { vlm::set_log_sink({}); }
  LoggedLines(const LoggedLines&) = delete;
  LoggedLines& operator=(const LoggedLines&) = delete;

  std::string text;
};
