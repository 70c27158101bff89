// The warnings that are logged while this lives, one a line.
#pragma once

#include <string>

#include "vlm/core/log.h"

class Warnings {
 public:
  Warnings() {
    vlm::set_log_sink([this](vlm::LogLevel level, const std::string& message) {
      if (level == vlm::LogLevel::kWarning) text += message + "\n";
    });
  }
  ~Warnings() { vlm::set_log_sink({}); }
  Warnings(const Warnings&) = delete;
  Warnings& operator=(const Warnings&) = delete;

  std::string text;
};
