// A whole file in the address space, read-only. Its pages are the kernel's to load and drop, so an
// index into a file of many gigabytes costs the index alone.
//
// The file must not be cut short while it is mapped.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vlm::data {

class MappedFile {
 public:
  // Throws Error naming the file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view text() const { return {static_cast<const char*>(memory_), size_}; }

 private:
  void* memory_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace vlm::data
