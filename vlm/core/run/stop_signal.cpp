#include "vlm/core/run/stop_signal.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace vlm {
namespace {

constexpr std::int64_t kSameRequestMs = 300;

std::atomic<int> g_signal{0};  // that asked to stop
std::atomic<std::int64_t> g_asked_ms{0};

std::int64_t now_ms() {
  struct timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{1000} * now.tv_sec + now.tv_nsec / 1'000'000;
}

void on_signal(int signal) {
  const std::int64_t now = now_ms();
  int none = 0;
  if (g_signal.compare_exchange_strong(none, signal)) {
    g_asked_ms = now;
  } else if (signal != SIGHUP && now - g_asked_ms > kSameRequestMs) {
    ::_exit(128 + signal);
  }
}

}  // namespace

bool stop_requested() {
  return g_signal.load() != 0;
}

void throw_if_stopped() {
  if (stop_requested()) throw Interrupted();
}

int stop_exit_code() {
  const int signal = g_signal.load();
  return 128 + (signal == 0 ? SIGTERM : signal);
}

void request_stop(int signal) {
  g_signal = signal;
}

void watch_for_stop() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction former = {};
  ::sigaction(SIGHUP, nullptr, &former);
  if (former.sa_handler != SIG_IGN) ::sigaction(SIGHUP, &action, nullptr);
}

}  // namespace vlm
