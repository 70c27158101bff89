#include "vlm/io/file_digest.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/xxh3.h"

namespace vlm {
namespace {

constexpr std::int64_t kPiece = 1 << 20;  // of one read
constexpr std::int64_t kEnd = 512 << 10;  // of a long file's beginning, and of its end
constexpr std::int64_t kBlock = 64 << 10;
constexpr std::int64_t kSamples = 64;

class OpenFile {
 public:
  explicit OpenFile(const std::filesystem::path& path)
      : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0 || ::fstat(file_, &status_) != 0) {
      const Error error = failure();
      if (file_ >= 0) ::close(file_);
      throw error;
    }
  }
  ~OpenFile() { ::close(file_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const struct stat& status() const { return status_; }

  // Adds the bytes from `begin` on; fewer when the file has become shorter.
  void add(std::int64_t begin, std::int64_t bytes, Xxh3& hash) {
    buffer_.resize(static_cast<std::size_t>(std::min(kPiece, bytes)));
    while (bytes > 0) {
      const auto wanted = static_cast<std::size_t>(std::min<std::int64_t>(kPiece, bytes));
      const ssize_t got = ::pread(file_, buffer_.data(), wanted, begin);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw failure();
      if (got == 0) return;
      hash.add(buffer_.data(), static_cast<std::size_t>(got));
      begin += got;
      bytes -= got;
    }
  }

 private:
  Error failure() const {
    return Error(
        {.what = "can't read the file", .where = path_.string(), .got = std::strerror(errno)});
  }

  std::filesystem::path path_;
  int file_;
  struct stat status_ = {};
  std::vector<char> buffer_;
};

std::string digest(const std::filesystem::path& path, std::int64_t whole_bytes, bool has_time,
                   const std::stop_token& stop) {
  struct stat kind = {};
  // Asked before it is opened: to open a pipe and close it again would break it for its writer.
  if (::stat(path.c_str(), &kind) == 0 && !S_ISREG(kind.st_mode)) return "";
  OpenFile file(path);
  const struct stat& status = file.status();
  const auto size = static_cast<std::int64_t>(status.st_size);
  Xxh3 hash;
  hash.add_text(concat(size));
  if (size <= std::max(whole_bytes, 2 * kEnd + kSamples * kBlock)) {
    for (std::int64_t begin = 0; begin < size && !stop.stop_requested(); begin += kPiece) {
      file.add(begin, std::min(kPiece, size - begin), hash);
    }
    return stop.stop_requested() ? "" : hash.hex();
  }
  if (has_time) hash.add_text(concat(status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec));
  file.add(0, kEnd, hash);
  const std::int64_t between = size - 2 * kEnd - kBlock;
  for (std::int64_t i = 0; i < kSamples; ++i) {
    file.add(kEnd + between / kSamples * i, kBlock, hash);
  }
  file.add(size - kEnd, kEnd, hash);
  return hash.hex();
}

}  // namespace

std::string digest_file(const std::filesystem::path& path, std::int64_t whole_bytes) {
  return digest(path, whole_bytes, /*has_time=*/true, {});
}

std::string digest_content(const std::filesystem::path& path, std::int64_t whole_bytes,
                           const std::stop_token& stop) {
  return digest(path, whole_bytes, /*has_time=*/false, stop);
}

std::string stamp_file(const std::filesystem::path& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return "";
  return concat(status.st_size, " ", status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec, " ",
                status.st_ctim.tv_sec, ".", status.st_ctim.tv_nsec, " ", status.st_ino);
}

}  // namespace vlm
