// Looks at the calls by which files get onto the disk, and lets them fail. Included by one file of
// a test program: its functions stand before the C library's.
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

struct DiskCalls {
  bool is_watching = false;
  std::vector<std::string> seen;          // "sync NAME", "rename NAME NAME"
  std::map<std::string, int> errors;      // of the next call of this kind: "sync", "rename"
  std::map<std::string, int> times = {};  // how often; once when it isn't here

  // Of the calling thread alone: others may be at work.
  static DiskCalls& get() {
    thread_local DiskCalls calls;
    return calls;
  }

  // The error that the call is to meet; 0: none.
  int take(const std::string& kind, const std::string& text) {
    if (!is_watching) return 0;
    seen.push_back(kind + " " + text);
    const auto found = errors.find(kind);
    if (found == errors.end()) return 0;
    const int error = found->second;
    if (!times.count(kind) || --times[kind] == 0) errors.erase(kind);
    return error;
  }
};

// Watches as long as it lives.
class DiskWatch {
 public:
  DiskWatch() { DiskCalls::get() = {.is_watching = true}; }
  ~DiskWatch() { DiskCalls::get() = {}; }

  DiskCalls* operator->() { return &DiskCalls::get(); }
};

// The name of an open file; what makes a temporary name its own becomes "*".
inline std::string short_name(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  const auto at = name.find(".tmp");
  return at == std::string::npos ? name : name.substr(0, at + 4) + "*";
}

inline int watched_sync(int file, long call) {
  std::error_code ignored;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(file), ignored);
  const int error = DiskCalls::get().take("sync", short_name(path));
  if (error == 0) return static_cast<int>(::syscall(call, file));
  errno = error;
  return -1;
}

extern "C" {

int fsync(int file) {
  return watched_sync(file, SYS_fsync);
}

int fdatasync(int file) {
  return watched_sync(file, SYS_fdatasync);
}

int rename(const char* from, const char* to) noexcept {
  const int error = DiskCalls::get().take("rename", short_name(from) + " " + short_name(to));
  if (error == 0)
    return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
  errno = error;
  return -1;
}
}
