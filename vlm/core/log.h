// Messages for people, to stderr by default; and results, to stdout.
//
//   log_…(message) ─► level ─► sink, or a line on stderr
//
// The level and the sink belong to the process; main.cpp sets them once from --log-level. On a
// terminal a status line (a progress bar) may stand below the messages: whatever is written goes
// above it. Thread-safe.
#pragma once

#include <exception>
#include <functional>
#include <string>

namespace vlm {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// "debug", "info", "warning", "error" or "off"; throws Error otherwise.
LogLevel parse_log_level(const std::string& name);

void set_log_level(LogLevel level);
LogLevel log_level();

// Sends all messages of the process to `sink`, until the next call; an empty function restores
// stderr. Any thread may call the sink, so what it refers to must live as long.
void set_log_sink(std::function<void(LogLevel, const std::string&)> sink);

void log_debug(const std::string& message);
void log_info(const std::string& message);
void log_warning(const std::string& message);
// Logs a message only the first time that this process gives it.
void log_warning_once(const std::string& message);
// For errors that end the command; others are warnings.
void log_error(const std::string& message);

// True when messages go to a terminal, so that there may be a status line.
bool has_status_line();
// Shows `line` below all messages, cut to the terminal's width, in place of the one before; an
// empty one takes it away.
void show_status(const std::string& line);
// Keeps the status line on the screen as a finished line; later messages are written below it.
void end_status();

// For commands: `text` to stdout, at once. Throws Error when it can't be written (a full disk),
// ResultsClosed when nobody reads it any more (a closed pipe).
void print_result(const std::string& text);

// Flushes stdout. Throws as print_result.
void finish_results();

// Thrown when nobody reads standard output any more. No Error: the program ends without a message,
// as it would by SIGPIPE.
class ResultsClosed : public std::exception {
 public:
  const char* what() const noexcept override { return "nobody reads standard output"; }
};

}  // namespace vlm
