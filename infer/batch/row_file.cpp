#include "infer/batch/row_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/io/file_lock.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

Error file_error(const char* what, const fs::path& path) {
  return Error({.what = what, .where = path.string(), .got = std::strerror(errno)});
}

}  // namespace

RowFile::RowFile(const fs::path& path, Open how) : path_(path) {
  struct stat status = {};
  // Asked before it is opened: opening may wait (pipes) or do something (devices).
  const bool is_there = ::stat(path.c_str(), &status) == 0;
  if (!is_there && how != Open::kMake && errno == ENOENT) return;
  if (is_there && S_ISDIR(status.st_mode)) {
    throw Error({.what = "is a folder, not a file", .where = path.string()});
  }
  if (is_there && !S_ISREG(status.st_mode)) {
    throw Error({.what = "not a regular file",
                 .where = path.string(),
                 .hint = "rows go to a file that a run can go on with"});
  }
  const int access = how == Open::kRead ? O_RDONLY : O_RDWR;
  file_ = ::open(path.c_str(), access | (how == Open::kMake ? O_CREAT : 0) | O_CLOEXEC, 0666);
  if (file_ < 0) {
    throw file_error(how == Open::kRead ? "can't read the file" : "can't write the file", path);
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
  return try_lock(file_, path_);
}

void RowFile::seek_end() {
  if (::lseek(file_, 0, SEEK_END) < 0) throw file_error("can't write the file", path_);
}

std::string RowFile::read(std::uint64_t begin, std::size_t count) const {
  std::string bytes(count, '\0');
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(file_, bytes.data() + done, count - done, static_cast<off_t>(begin + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw file_error("can't read the file", path_);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

std::uint64_t RowFile::size() const {
  struct stat status = {};
  if (::fstat(file_, &status) != 0) throw file_error("can't read the file", path_);
  return static_cast<std::uint64_t>(status.st_size);
}

std::uint64_t RowFile::names() const {
  struct stat status = {};
  return ::fstat(file_, &status) == 0 ? static_cast<std::uint64_t>(status.st_nlink) : 1;
}

void RowFile::take_permissions_of(const RowFile& other) {
  struct stat status = {};
  if (!other.is_open() || ::fstat(other.file_, &status) != 0) return;
  if (::fchmod(file_, status.st_mode & 07777) != 0) throw file_error("can't write the file", path_);
}

bool RowFile::is_at(const fs::path& path) const {
  struct stat opened = {}, there = {};
  return ::fstat(file_, &opened) == 0 && ::stat(path.c_str(), &there) == 0 &&
         opened.st_ino == there.st_ino && opened.st_dev == there.st_dev;
}

std::string_view RowReader::at(std::uint64_t begin, std::size_t count) {
  constexpr std::size_t kPiece = 1 << 20;
  const bool is_inside = begin >= begin_ && begin + count <= begin_ + buffer_.size();
  if (!is_inside) {
    buffer_ = file_.read(begin, std::max(count, kPiece));
    begin_ = begin;
  }
  return std::string_view(buffer_).substr(begin - begin_, count);
}

RowFile open_locked(const fs::path& path, RowFile::Open how) {
  for (;;) {
    RowFile file(path, how);
    if (!file.is_open()) return file;
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
