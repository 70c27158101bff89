// A picture or clip of a sample before it is opened: a file, a member of a tar archive, or bytes
// that came with the sample.
//
//   "cat.png", "file:///cat.png", "data:image/png;base64,…" ─► resolve_medium ─► MediaRef
//   MediaRef ─► read_bytes ─► the file as it is;  ─► load_picture ─► Image [H, W, 3] u8
//
// Nothing is fetched from the network. All functions are thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "vlm/image/image.h"

namespace vlm::data {

enum class MediaKind { kPicture, kVideo };

// "image" or "video": the type of its part in a message.
const char* part_type(MediaKind kind);

// A file, or a picture that is a part of a tar archive or already in memory.
struct MediaRef {
  MediaKind kind = MediaKind::kPicture;
  std::string name;                               // of the file, for errors
  std::string archive = {};                       // the tar that holds it; empty: none
  std::uint64_t offset = 0, size = 0;             // of its bytes in the archive
  std::shared_ptr<const std::string> bytes = {};  // of a data URI
  // A picture that is shown as one tile, however large it is: OpenAI's "detail": "low".
  bool is_whole = false;

  bool is_file() const { return archive.empty() && !bytes; }
  // True for the same place or the same bytes, shown in the same way.
  bool operator==(const MediaRef& other) const;
};

// Where media may come from.
struct MediaRoot {
  std::filesystem::path folder;  // relative paths begin here
  bool is_confined = false;      // true: files outside of the folder are refused
};

// A path, a file:// URI or, for pictures, a data: URI or its base64 text alone. Throws Error for
// http(s) and other schemes, for data that is not base64, and for a path that leaves a confined
// root.
MediaRef resolve_medium(const std::string& reference, const MediaRoot& root,
                        MediaKind kind = MediaKind::kPicture);

// Throw Error naming the medium.
std::string read_bytes(const MediaRef& medium);
Image load_picture(const MediaRef& picture);

// Standard base64. Decoding also takes the alphabet of URLs, no padding, and line breaks and spaces
// anywhere; it throws Error for anything else.
std::string decode_base64(std::string_view text);
std::string encode_base64(std::string_view bytes);

}  // namespace vlm::data
