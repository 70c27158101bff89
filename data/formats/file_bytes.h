// A file of rows, read piece by piece.
//
// The file is not memory-mapped: if it becomes shorter while a run reads it, that is an Error with
// its name, and not a signal (SIGBUS) that ends the program. Memory holds one buffer, however large
// the file is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace vlm {
class ListDigest;
}

namespace vlm::data {

class FileBytes {
 public:
  // Throws Error naming a path that can't be opened or is no regular file.
  explicit FileBytes(const std::string& path);
  ~FileBytes();
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  const std::string& path() const { return path_; }

  // Both are thread-safe and throw Error naming the file. If the file has become shorter, `read`
  // throws and `read_some` returns fewer bytes than `size`.
  std::string read(std::uint64_t begin, std::size_t size) const;
  std::size_t read_some(std::uint64_t begin, char* bytes, std::size_t size) const;

 private:
  std::string path_;
  int file_ = -1;
};

// Reads a file, or a part of it, from front to back.
class ByteStream {
 public:
  // The file must outlive this.
  explicit ByteStream(const FileBytes& file) : file_(file), left_(kToTheEnd) {}
  ByteStream(const FileBytes& file, std::uint64_t begin, std::size_t size)
      : file_(file), left_(size), next_(begin) {}

  // The next bytes, as many as the buffer holds; none only at the end. Valid until `skip`.
  std::string_view next_bytes() {
    if (begin_ == buffer_.size()) refill();
    return std::string_view(buffer_).substr(begin_);
  }
  void skip(std::size_t count) { begin_ += count; }

  bool at_end() { return begin_ == buffer_.size() && next_bytes().empty(); }
  // The next byte. Not to be called at the end.
  char peek() { return next_bytes().front(); }

  // Offset of the next byte in the file.
  std::uint64_t at() const { return next_ - (buffer_.size() - begin_); }

 private:
  static constexpr std::uint64_t kToTheEnd = UINT64_MAX;

  void refill();

  const FileBytes& file_;
  std::uint64_t left_;      // bytes that were not read into the buffer yet
  std::uint64_t next_ = 0;  // offset of the first of them
  std::string buffer_;
  std::size_t begin_ = 0;
};

// Adds all bytes of the file.
void add_bytes(const FileBytes& file, ListDigest& digest);

// Skips a byte order mark at the front of a file. Throws Error for one of another encoding.
void skip_mark(ByteStream& stream, const std::string& where);

}  // namespace vlm::data
