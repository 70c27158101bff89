// Lists the members of an uncompressed tar, reading headers only.
//
// Contents are skipped; their offsets are returned, so that they can be read later in any order.
// ustar, GNU and pax archives, through libarchive. Compressed archives are refused: their members
// can't be read in place.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace vlm::data {

struct TarMember {
  std::string name;
  std::uint64_t offset = 0, size = 0;  // of its bytes in the archive
};

class TarReader {
 public:
  // Throws Error naming the archive.
  explicit TarReader(const std::string& path);
  ~TarReader();
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;

  // The next regular file; false at the end. Throws Error for a broken or truncated archive.
  bool next(TarMember& member);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// WebDataset's key and suffix: "dir/0001.left.jpg" → "dir/0001" and "left.jpg".
std::pair<std::string, std::string> split_member_name(const std::string& name);

// The text of a member, without a byte order mark. Throws Error naming `where` for bytes that
// aren't UTF-8.
std::string text_member(const std::string& bytes, const std::string& where);

}  // namespace vlm::data
