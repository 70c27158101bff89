#include "data/formats/file_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"
#include "vlm/io/list_digest.h"

namespace vlm::data {
namespace {

constexpr std::size_t kBlock = 1 << 18;

}  // namespace

FileBytes::FileBytes(const std::string& path) : path_(path) {
  file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status = {};
  if (file_ < 0 || ::fstat(file_, &status) != 0) {
    const Error error({.what = "can't open the file", .where = path, .got = std::strerror(errno)});
    if (file_ >= 0) ::close(file_);
    throw error;
  }
  if (S_ISREG(status.st_mode)) return;
  ::close(file_);
  throw Error({.what = "not a file with rows",
               .where = path,
               .got = S_ISDIR(status.st_mode) ? "a folder" : "a pipe or device",
               .wanted = "a regular file: its rows are read in any order"});
}

FileBytes::~FileBytes() {
  ::close(file_);
}

std::size_t FileBytes::read_some(std::uint64_t begin, char* bytes, std::size_t size) const {
  for (;;) {
    const ssize_t count = ::pread(file_, bytes, size, static_cast<off_t>(begin));
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno == EINTR) continue;
    throw Error({.what = "can't read the file", .where = path_, .got = std::strerror(errno)});
  }
}

std::string FileBytes::read(std::uint64_t begin, std::size_t size) const {
  std::string bytes(size, '\0');
  for (std::size_t done = 0; done < size;) {
    const std::size_t count = read_some(begin + done, bytes.data() + done, size - done);
    if (count == 0) {
      throw Error({.what = "the file became shorter while it was read",
                   .where = path_,
                   .got = concat(begin + done, " bytes"),
                   .wanted = concat("at least ", begin + size)});
    }
    done += count;
  }
  return bytes;
}

void ByteStream::refill() {
  begin_ = 0;
  if (left_ == kToTheEnd) {
    buffer_.resize(kBlock);
    buffer_.resize(file_.read_some(next_, buffer_.data(), kBlock));
  } else {
    buffer_ = file_.read(next_, static_cast<std::size_t>(std::min<std::uint64_t>(kBlock, left_)));
    left_ -= buffer_.size();
  }
  next_ += buffer_.size();
}

void add_bytes(const FileBytes& file, ListDigest& digest) {
  for (ByteStream stream(file); !stream.at_end();) {
    const std::string_view bytes = stream.next_bytes();
    digest.add(bytes);
    stream.skip(bytes.size());
  }
}

void skip_mark(ByteStream& stream, const std::string& where) {
  stream.skip(mark_size(stream.next_bytes().substr(0, 4), where));
}

}  // namespace vlm::data
