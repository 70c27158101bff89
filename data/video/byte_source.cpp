#include "data/video/byte_source.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::data {
namespace {

constexpr int kBufferBytes = 1 << 16;

Error failure(const std::string& what, const std::string& where) {
  return Error({.what = what, .where = where, .got = std::strerror(errno)});
}

int open_for_reading(const std::filesystem::path& path, const std::string& where) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw failure("can't open the file", where);
  return descriptor;
}

// A file that is gone when it is closed.
int open_nameless(const std::string& where) {
  std::string name = (std::filesystem::temp_directory_path() / "vlm_video_XXXXXX").string();
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) throw failure("can't make a temporary file for what a pipe holds", where);
  ::unlink(name.c_str());
  return descriptor;
}

void write_all(int descriptor, const char* data, std::size_t size, const std::string& where) {
  while (size > 0) {
    const ssize_t written = ::write(descriptor, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw failure("can't write a pipe's bytes to a temporary file", where);
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

// Bytes from a pipe, 0 at its end. Wakes up now and then to look at the clock, and whether the
// program was told to stop: a pipe may wait for ever.
ssize_t read_some(int descriptor, std::vector<char>& buffer, const WorkClock& clock,
                  const std::string& where) {
  while (true) {
    clock.check();
    if (stop_requested())
      throw Error({.what = "told to stop while a pipe is read", .where = where});
    pollfd waiting = {descriptor, POLLIN, 0};
    if (::poll(&waiting, 1, 200) == 0) continue;
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count >= 0 || (errno != EINTR && errno != EAGAIN)) return count;
  }
}

}  // namespace

ByteSource::ByteSource(const std::filesystem::path& path, const VideoLimits& limits,
                       const WorkClock& clock)
    : where_(path == "-" ? "standard input" : path.string()), clock_(clock) {
  is_standard_input_ = path == "-";
  descriptor_ = is_standard_input_ ? STDIN_FILENO : open_for_reading(path, where_);
  try {
    struct stat status = {};
    if (::fstat(descriptor_, &status) != 0) throw failure("can't open the file", where_);
    if (S_ISDIR(status.st_mode)) throw Error({.what = "is a folder, not a file", .where = where_});
    size_ = status.st_size;
    if (!S_ISREG(status.st_mode) || ::lseek(descriptor_, 0, SEEK_CUR) < 0) spool(limits);
    if (size_ == 0) throw Error({.what = "file is empty", .where = where_});
  } catch (...) {
    if (!is_standard_input_) ::close(descriptor_);
    throw;
  }
}

ByteSource::~ByteSource() {
  if (context_) av_freep(&context_->buffer);
  avio_context_free(&context_);
  if (!is_standard_input_) ::close(descriptor_);
}

void ByteSource::spool(const VideoLimits& limits) {
  const int copy = open_nameless(where_);
  try {
    std::vector<char> buffer(1 << 18);
    size_ = 0;
    while (const ssize_t count = read_some(descriptor_, buffer, clock_, where_)) {
      if (count < 0) throw failure("can't read the pipe", where_);
      size_ += count;
      if (size_ > limits.max_spool_bytes) {
        throw Error({.what = "pipe holds too much",
                     .where = where_,
                     .wanted = concat("at most ", limits.max_spool_bytes, " bytes")});
      }
      write_all(copy, buffer.data(), static_cast<std::size_t>(count), where_);
    }
  } catch (...) {
    ::close(copy);
    throw;
  }
  if (!is_standard_input_) ::close(descriptor_);
  is_standard_input_ = false;
  descriptor_ = copy;
}

AVIOContext* ByteSource::rewind() {
  if (context_) av_freep(&context_->buffer);
  avio_context_free(&context_);
  at_ = 0;
  auto* buffer = static_cast<unsigned char*>(av_malloc(kBufferBytes));
  if (!buffer) throw std::bad_alloc();
  context_ = avio_alloc_context(buffer, kBufferBytes, 0, this, &read, nullptr, &seek);
  if (!context_) {
    av_free(buffer);
    throw std::bad_alloc();
  }
  return context_;
}

int ByteSource::read(void* self, std::uint8_t* buffer, int size) {
  auto& source = *static_cast<ByteSource*>(self);
  if (source.clock_.is_over()) return AVERROR_EXIT;
  ssize_t count = 0;
  do {
    count = ::pread(source.descriptor_, buffer, static_cast<std::size_t>(size), source.at_);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return AVERROR(errno);
  if (count == 0) return AVERROR_EOF;
  source.at_ += count;
  return static_cast<int>(count);
}

std::int64_t ByteSource::seek(void* self, std::int64_t offset, int whence) {
  auto& source = *static_cast<ByteSource*>(self);
  if (whence & AVSEEK_SIZE) return source.size_;
  whence &= ~AVSEEK_FORCE;
  const std::int64_t base = whence == SEEK_CUR ? source.at_ : whence == SEEK_END ? source.size_ : 0;
  if (offset > INT64_MAX - base || base + offset < 0) return AVERROR(EINVAL);
  return source.at_ = base + offset;
}

}  // namespace vlm::data
