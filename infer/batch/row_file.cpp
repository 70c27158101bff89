#include "infer/batch/row_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

Error file_error(const char* what, const fs::path& path) {
  return Error({.what = what, .where = path.string(), .got = std::strerror(errno)});
}

}  // namespace

RowFile::RowFile(const fs::path& path)
    : path_(path), file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (file_ < 0) throw file_error("can't write the file", path);
  struct stat status = {};
  if (::fstat(file_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(std::exchange(file_, -1));
    throw Error({.what = "not a regular file",
                 .where = path.string(),
                 .hint = "rows go to a file that a run can go on with"});
  }
}

RowFile::~RowFile() {
  if (file_ >= 0) ::close(file_);
}

RowFile::RowFile(RowFile&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

RowFile& RowFile::operator=(RowFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

void RowFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw file_error("can't write the file", path_);
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void RowFile::truncate(std::uint64_t size) {
  if (::ftruncate(file_, static_cast<off_t>(size)) != 0 ||
      ::lseek(file_, static_cast<off_t>(size), SEEK_SET) < 0) {
    throw file_error("can't cut the file", path_);
  }
}

void RowFile::sync() {
  sync_file(file_, path_);
}

bool RowFile::lock() {
  if (::flock(file_, LOCK_EX | LOCK_NB) == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  throw file_error("can't lock the file", path_);
}

bool RowFile::is_at(const fs::path& path) const {
  struct stat own = {}, there = {};
  return ::fstat(file_, &own) == 0 && ::stat(path.c_str(), &there) == 0 &&
         own.st_ino == there.st_ino && own.st_dev == there.st_dev;
}

RowFile open_locked(const fs::path& path) {
  for (;;) {
    RowFile file(path);
    if (!file.lock()) {
      throw Error({.what = "another run is writing to this output",
                   .where = path.string(),
                   .hint = "wait for it, or choose another --output"});
    }
    // The holder may have replaced the file between our opening and its unlocking.
    if (file.is_at(path)) return file;
  }
}

}  // namespace vlm::infer
