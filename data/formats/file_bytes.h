// A file of rows, read piece by piece.
//
// Nothing of it is mapped: a file that somebody cuts short while a run reads it is then an error
// with its name, not a signal that ends the program. An index into many gigabytes costs the index
// and one buffer.
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
  // Throws Error naming what is no file that can be read at any place.
  explicit FileBytes(const std::string& path);
  ~FileBytes();
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  const std::string& path() const { return path_; }

  // Both are thread-safe and throw Error naming the file. Fewer bytes than `size`, which are there
  // only when the file has become shorter, are an error of `read`.
  std::string read(std::uint64_t begin, std::size_t size) const;
  std::size_t read_some(std::uint64_t begin, char* bytes, std::size_t size) const;

 private:
  std::string path_;
  int file_ = -1;
};

// Walks over a file, or a part of it that must be there, from front to back.
class ByteStream {
 public:
  // The file must outlive this.
  explicit ByteStream(const FileBytes& file) : file_(file), left_(kToTheEnd) {}
  ByteStream(const FileBytes& file, std::uint64_t begin, std::size_t size)
      : file_(file), left_(size), next_(begin) {}

  // Bytes that come next: some, or none at the end. Valid until `skip`.
  std::string_view rest() {
    if (begin_ == buffer_.size()) refill();
    return std::string_view(buffer_).substr(begin_);
  }
  void skip(std::size_t count) { begin_ += count; }

  bool at_end() { return begin_ == buffer_.size() && rest().empty(); }
  // Not at the end.
  char peek() { return rest().front(); }

  // Place of the next byte in the file.
  std::uint64_t at() const { return next_ - (buffer_.size() - begin_); }

 private:
  static constexpr std::uint64_t kToTheEnd = UINT64_MAX;

  void refill();

  const FileBytes& file_;
  std::uint64_t left_;      // bytes that may be read behind the buffer
  std::uint64_t next_ = 0;  // place of the first of them
  std::string buffer_;
  std::size_t begin_ = 0;
};

// All of the file's bytes.
void add_bytes(const FileBytes& file, ListDigest& digest);

// Skips a byte order mark at the front of a file. Throws Error for one of another encoding.
void skip_mark(ByteStream& stream, const std::string& where);

}  // namespace vlm::data
