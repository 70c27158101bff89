// Plain file operations that a journal can be built on: unbuffered, whole or an Error, locked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace vlm::infer {

// An open file that is closed with the object. Every failure is an Error naming the path and the
// system's reason.
class RowFile {
 public:
  RowFile() = default;
  // Opens to read and write, made when it isn't there.
  explicit RowFile(const std::filesystem::path& path);
  ~RowFile();
  RowFile(RowFile&& other) noexcept;
  RowFile& operator=(RowFile&& other) noexcept;

  // At the end of what was written so far; handed to the kernel when it returns.
  void write(std::string_view bytes);
  // Cuts the file here and goes on writing here.
  void truncate(std::uint64_t size);
  void sync();
  // False when another process holds the lock. It lasts until the file is closed.
  bool lock();
  // True when the path still names this file.
  bool is_at(const std::filesystem::path& path) const;
  bool is_open() const { return file_ >= 0; }

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

// Opens the file and takes its lock. Throws Error when another run holds it.
RowFile open_locked(const std::filesystem::path& path);

}  // namespace vlm::infer
