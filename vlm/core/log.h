// Messages for people, to stderr by default; and results, to stdout.
//
// The level and the sink belong to the process; main.cpp sets them once from --log-level.
#pragma once

#include <exception>
#include <functional>
#include <string>

namespace vlm {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// "debug", "info", "warning", "error" or "off"; throws Error otherwise.
LogLevel parse_log_level(const std::string& name);

void set_log_level(LogLevel level);

// Replaces where messages go (tests collect them); an empty function restores stderr.
void set_log_sink(std::function<void(LogLevel, const std::string&)> sink);

void log_debug(const std::string& message);
void log_info(const std::string& message);
void log_warning(const std::string& message);

// For commands: `text` to stdout, at once. Throws Error when it can't be written (a full disk),
// ResultsClosed when nobody reads it any more (a closed pipe).
void print_result(const std::string& text);

// Whatever was written to stdout is there when it returns. Throws as print_result.
void finish_results();

// Nothing to tell anybody: the program just ends, as it would by SIGPIPE.
class ResultsClosed : public std::exception {
 public:
  const char* what() const noexcept override { return "nobody reads standard output"; }
};

}  // namespace vlm
