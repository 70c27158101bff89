// Plain file operations that a journal can be built on: unbuffered, whole or an Error, locked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

namespace vlm::infer {

// An open file that is closed with the object. Every failure is an Error naming the path and the
// system's reason.
class RowFile {
 public:
  enum class Open {
    kMake,      // to read and write, made when it isn't there
    kExisting,  // to read and write; not open when it isn't there
    kRead,      // to read; not open when it isn't there
  };

  RowFile() = default;
  // Throws Error for what is no regular file, too.
  explicit RowFile(const std::filesystem::path& path, Open how = Open::kMake);
  ~RowFile();
  RowFile(RowFile&& other) noexcept;
  RowFile& operator=(RowFile&& other) noexcept;

  // At the end of what was written so far; handed to the kernel when it returns.
  void write(std::string_view bytes);
  // Cuts the file here and goes on writing here.
  void truncate(std::uint64_t size);
  void seek_end();
  void sync();
  // False when another process holds the lock. It lasts until the file is closed.
  bool lock();

  // Bytes from `begin` on, fewer at the end of the file. Leaves the place of writing.
  std::string read(std::uint64_t begin, std::size_t count) const;
  std::uint64_t size() const;
  // Of the same file: more than one when there are hard links.
  std::uint64_t names() const;
  void take_permissions_of(const RowFile& other);

  // True when the path still names this file.
  bool is_at(const std::filesystem::path& path) const;
  bool is_open() const { return file_ >= 0; }
  // Errors name the file by the name that it was given meanwhile.
  void call(std::filesystem::path path) { path_ = std::move(path); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

// Reads forward through a file, a large piece at a time.
class RowReader {
 public:
  explicit RowReader(const RowFile& file) : file_(file) {}
  // Valid until the next call; fewer bytes at the end of the file.
  std::string_view at(std::uint64_t begin, std::size_t count);

 private:
  const RowFile& file_;
  std::string buffer_;
  std::uint64_t begin_ = 0;
};

// Opens the file and takes its lock. Throws Error when another run holds it.
RowFile open_locked(const std::filesystem::path& path, RowFile::Open how = RowFile::Open::kMake);

}  // namespace vlm::infer
