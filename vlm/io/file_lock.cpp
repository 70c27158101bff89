#include "vlm/io/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

Error system_error(const char* what, const fs::path& path) {
  return Error({.what = what, .where = path.string(), .got = std::strerror(errno)});
}

// True when the path names the open file: its holder may have removed it before we had the lock.
bool is_at(int file, const fs::path& path) {
  struct stat own = {}, there = {};
  return ::fstat(file, &own) == 0 && ::stat(path.c_str(), &there) == 0 &&
         own.st_ino == there.st_ino && own.st_dev == there.st_dev;
}

std::string describe_program() {
  std::array<char, 256> host = {};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return concat("process ", ::getpid(), " on ", host.data());
}

// Who holds the lock, as it wrote itself down.
std::string read_holder(int file) {
  std::array<char, 512> text = {};
  const ssize_t count = ::pread(file, text.data(), text.size() - 1, 0);
  return count > 0 ? std::string(text.data(), static_cast<std::size_t>(count)) : "";
}

}  // namespace

bool try_lock(int file, const fs::path& path) {
  while (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) return false;
    if (errno == ENOSYS || errno == ENOTSUP || errno == ENOLCK) {
      log_warning(concat(path.string(), ": the file system has no locks (", std::strerror(errno),
                         "): two programs that write there at once aren't noticed"));
      return true;
    }
    throw system_error("can't lock the file", path);
  }
  return true;
}

FolderLock::FolderLock(const fs::path& folder, const std::string& hint)
    : folder_(folder), path_(folder / kLockFile) {
  std::error_code reason;
  is_new_ = fs::create_directories(folder_, reason);
  if (reason) {
    throw Error(
        {.what = "can't make the folder", .where = folder_.string(), .got = reason.message()});
  }
  while (file_ < 0) {
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file_ < 0) throw system_error("can't write to the folder", folder_);
    if (!try_lock(file_, path_)) {
      const std::string holder = read_holder(file_);
      ::close(std::exchange(file_, -1));
      throw Error({.what = "another program is writing to this folder",
                   .where = folder_.string(),
                   .got = holder,
                   .hint = hint});
    }
    if (!is_at(file_, path_)) ::close(std::exchange(file_, -1));
  }
  const std::string self = describe_program();
  // Only for the other one's error message: that it can't be written matters to no one.
  [[maybe_unused]] const bool is_logged =
      ::ftruncate(file_, 0) == 0 && ::pwrite(file_, self.data(), self.size(), 0) > 0;
}

FolderLock::~FolderLock() {
  std::error_code ignored;
  fs::remove(path_, ignored);  // while it is ours
  ::close(file_);
  if (is_new_) ::rmdir(folder_.c_str());  // leaves a folder that holds anything
}

}  // namespace vlm
