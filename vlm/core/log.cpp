#include "vlm/core/log.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "vlm/core/error.h"

namespace vlm {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::mutex g_sink_mutex;
std::function<void(LogLevel, const std::string&)> g_sink;

void write_log(LogLevel level, const std::string& message) {
  if (level < g_level.load()) return;
  const std::lock_guard lock(g_sink_mutex);
  if (g_sink) return g_sink(level, message);
  const char* label = level == LogLevel::kWarning ? "warning: " : "";
  std::fprintf(stderr, "%s%s\n", label, message.c_str());
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

void set_log_sink(std::function<void(LogLevel, const std::string&)> sink) {
  const std::lock_guard lock(g_sink_mutex);
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

void print_result(const std::string& text) {
  errno = 0;
  std::fwrite(text.data(), 1, text.size(), stdout);
  finish_results();
}

void finish_results() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  if (errno == EPIPE) throw ResultsClosed();
  throw Error({.what = "can't write to standard output",
               .got = errno != 0 ? std::strerror(errno) : "an error before"});
}

}  // namespace vlm
