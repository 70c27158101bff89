// The file operations that row_log.h needs: writes without a buffer, that succeed as a whole or
// throw Error; locks; and whether a path still names the open file.
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
    kMake,      // to read and write; a missing file is made
    kExisting,  // to read and write; with a missing file, is_open() is false
    kRead,      // to read; with a missing file, is_open() is false
  };

  RowFile() = default;
  // Throws Error also when the path is no regular file.
  explicit RowFile(const std::filesystem::path& path, Open how = Open::kMake);
  ~RowFile();
  RowFile(RowFile&& other) noexcept;
  RowFile& operator=(RowFile&& other) noexcept;

  // Writes behind the last write. When it returns, the kernel has the bytes; see sync().
  void write(std::string_view bytes);
  // Cuts the file to this size; the next write goes to its end.
  void truncate(std::uint64_t size);
  void seek_end();
  void sync();
  // False when another process holds the lock. It lasts until the file is closed.
  bool lock();

  // Bytes from `begin` on, fewer at the end of the file. Doesn't move the place of the next write.
  std::string read(std::uint64_t begin, std::size_t count) const;
  std::uint64_t size() const;
  // Number of names (hard links) of the file.
  std::uint64_t names() const;
  void take_permissions_of(const RowFile& other);

  // True when the path still names this file.
  bool is_at(const std::filesystem::path& path) const;
  bool is_open() const { return file_ >= 0; }
  // The file was renamed: errors use the new path from now on.
  void call(std::filesystem::path path) { path_ = std::move(path); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

// Reads a file from front to back, with large reads.
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
