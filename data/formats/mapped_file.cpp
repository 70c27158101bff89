#include "data/formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "vlm/core/error.h"

namespace vlm::data {

MappedFile::MappedFile(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status = {};
  if (file < 0 || ::fstat(file, &status) != 0) {
    const Error error({.what = "can't open the file", .where = path, .got = std::strerror(errno)});
    if (file >= 0) ::close(file);
    throw error;
  }
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ > 0) memory_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
  ::close(file);
  if (memory_ == MAP_FAILED) {
    memory_ = nullptr;
    throw Error({.what = "can't map the file", .where = path});
  }
}

MappedFile::~MappedFile() {
  if (memory_) ::munmap(memory_, size_);
}

}  // namespace vlm::data
