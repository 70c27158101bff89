#include "vlm/core/log.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>

#include "vlm/core/error.h"

namespace vlm {
namespace {

constexpr const char* kClearLine = "\r\033[K";

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::mutex g_mutex;  // of all below, and of what is written
std::function<void(LogLevel, const std::string&)> g_sink;
std::string g_status;  // what stands on the terminal's last line

const char* label_of(LogLevel level) {
  if (level == LogLevel::kError) return "error: ";
  return level == LogLevel::kWarning ? "warning: " : "";
}

void write_log(LogLevel level, const std::string& message) {
  if (level < g_level.load()) return;
  const std::lock_guard lock(g_mutex);
  if (g_sink) return g_sink(level, message);
  const std::string clear = g_status.empty() ? "" : kClearLine;
  std::fputs((clear + label_of(level) + message + "\n" + g_status).c_str(), stderr);
  std::fflush(stderr);
}

// What fits on one line; a longer one would wrap, and only its last part could be cleared.
std::string cut_to_terminal(const std::string& line) {
  struct winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return line;
  std::size_t end = 0, columns = 1;  // the last column stays free: some terminals wrap behind it
  for (; end < line.size(); ++end) {
    const bool begins_character = (static_cast<unsigned char>(line[end]) & 0xC0) != 0x80;
    if (begins_character && ++columns > size.ws_col) break;
  }
  return line.substr(0, end);
}

}  // namespace

LogLevel parse_log_level(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  throw Error({.what = "unknown log level",
               .got = "'" + name + "'",
               .wanted = "debug, info, warning, error or off"});
}

void set_log_level(LogLevel level) {
  g_level = level;
}

LogLevel log_level() {
  return g_level;
}

void set_log_sink(std::function<void(LogLevel, const std::string&)> sink) {
  const std::lock_guard lock(g_mutex);
  g_sink = std::move(sink);
}

void log_debug(const std::string& message) {
  write_log(LogLevel::kDebug, message);
}
void log_info(const std::string& message) {
  write_log(LogLevel::kInfo, message);
}
void log_warning(const std::string& message) {
  write_log(LogLevel::kWarning, message);
}
void log_warning_once(const std::string& message) {
  static std::mutex mutex;
  static std::set<std::string> logged;
  {
    const std::lock_guard lock(mutex);
    if (!logged.insert(message).second) return;
  }
  log_warning(message);
}
void log_error(const std::string& message) {
  write_log(LogLevel::kError, message);
}

bool has_status_line() {
  const std::lock_guard lock(g_mutex);
  return !g_sink && ::isatty(STDERR_FILENO) != 0;
}

void show_status(const std::string& line) {
  const std::lock_guard lock(g_mutex);
  if (line.empty() && g_status.empty()) return;
  g_status = cut_to_terminal(line);
  std::fputs((kClearLine + g_status).c_str(), stderr);
  std::fflush(stderr);
}

void end_status() {
  const std::lock_guard lock(g_mutex);
  if (!g_status.empty()) std::fputc('\n', stderr);
  g_status.clear();
}

void print_result(const std::string& text) {
  const std::lock_guard lock(g_mutex);
  if (!g_status.empty()) std::fputs(kClearLine, stderr);  // the next update draws it again
  errno = 0;
  std::fwrite(text.data(), 1, text.size(), stdout);
  finish_results();
}

void finish_results() {
  static std::atomic<int> first_error{0};  // stdout stays broken behind it, errno doesn't
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  int none = 0;
  first_error.compare_exchange_strong(none, errno);
  const int error = first_error;
  if (error == EPIPE) throw ResultsClosed();
  throw Error({.what = "can't write to standard output",
               .got = error != 0 ? std::strerror(error) : "an error before"});
}

}  // namespace vlm
