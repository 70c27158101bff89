#include "vlm/core/run/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm {

Progress::Progress(std::string unit, std::int64_t total, std::int64_t done)
    : unit_(std::move(unit)),
      total_(total),
      first_(done),
      done_(done),
      is_terminal_(has_status_line()) {}

Progress::~Progress() {
  if (is_terminal_) end_status();
}

void Progress::update(std::int64_t done, const std::string& note) {
  done_ = done;
  if (log_level() > LogLevel::kInfo) return;
  const auto now = Clock::now();
  const auto interval = is_terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(10);
  if (done_ < total_ && printed_ != Clock::time_point() && now - printed_ < interval) return;
  printed_ = now;
  print(note);
}

void Progress::print(const std::string& note) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = static_cast<double>(done_ - first_) / std::max(seconds, 1e-9);
  const std::string left =
      rate > 0 ? format_duration(std::max(0.0, static_cast<double>(total_ - done_) / rate)) : "?";
  const std::string numbers =
      concat(done_, "/", total_, " ", unit_, ", ", fixed_text(rate, 2), "/s, ", left, " left",
             note.empty() ? "" : ", ", note.substr(0, 60));
  if (!is_terminal_) return log_info(numbers);
  constexpr int kWidth = 24;
  const auto part = total_ > 0 ? std::clamp<std::int64_t>(kWidth * done_ / total_, 0, kWidth) : 0;
  const int filled = static_cast<int>(part);
  const std::string bar = std::string(static_cast<std::size_t>(filled), '#') +
                          std::string(static_cast<std::size_t>(kWidth - filled), '.');
  show_status("[" + bar + "] " + numbers);
}

std::string format_duration(double seconds) {
  const auto whole = static_cast<long long>(seconds + 0.5);
  char text[48];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60,
                  whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  }
  return text;
}

}  // namespace vlm
