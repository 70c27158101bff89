#include "data/media/media_ref.h"

#include <algorithm>
#include <array>
#include <fstream>

#include "data/media/media.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum : int { kNoDigit = -1, kSpace = -2, kPadding = -3 };

// 0 to 63, or one of the above. "-" and "_" are URLs' letters for "+" and "/".
int base64_value(char c) {
  static const auto values = [] {
    std::array<int, 256> table{};
    table.fill(kNoDigit);
    for (std::size_t i = 0; i < kDigits.size(); ++i) {
      table[static_cast<unsigned char>(kDigits[i])] = static_cast<int>(i);
    }
    table['-'] = 62;
    table['_'] = 63;
    for (const char space : {' ', '\t', '\r', '\n'}) {
      table[static_cast<unsigned char>(space)] = kSpace;
    }
    table['='] = kPadding;
    return table;
  }();
  return values[static_cast<unsigned char>(c)];
}

Error not_base64(std::size_t size) {
  return Error({.what = "not base64",
                .got = concat(size, " characters"),
                .wanted = "A-Z a-z 0-9 and + / or - _, four for three bytes, = at the end only"});
}

// Base64 of a picture without "data:" in front. Paths that look so are paths when they exist.
bool is_bare_base64(const std::string& text) {
  constexpr std::size_t kLeast = 64, kStart = 32;  // digits: of a picture, and of its first bytes
  if (text.size() < kLeast) return false;
  const bool has_digits =
      std::all_of(text.begin(), text.end(), [](char c) { return base64_value(c) != kNoDigit; });
  if (!has_digits) return false;
  std::string start;
  for (std::size_t i = 0; i < text.size() && start.size() < kStart; ++i) {
    if (base64_value(text[i]) >= 0) start += text[i];
  }
  if (start.size() < kStart || !is_picture_start(decode_base64(start))) return false;
  std::error_code unknown;  // a name may be too long for any file
  return !fs::exists(text, unknown);
}

// The start of a long reference, for messages; no character is cut.
std::string shortened(const std::string& text) {
  if (text.size() <= 60) return text;
  std::size_t end = 57;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

MediaRef picture_of_data_uri(const std::string& uri) {
  const auto comma = uri.find(',');
  if (comma == std::string::npos || !uri.substr(0, comma).ends_with(";base64")) {
    throw Error({.what = "data URI without base64 data",
                 .got = shortened(uri),
                 .wanted = "data:image/…;base64,…"});
  }
  const std::string_view data = std::string_view(uri).substr(comma + 1);
  return {.name = uri.substr(0, comma),
          .bytes = std::make_shared<const std::string>(decode_base64(data))};
}

std::string decode_percents(const std::string& text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_escape = text[i] == '%' && i + 2 < text.size() && is_hex_digit(text[i + 1]) &&
                           is_hex_digit(text[i + 2]);
    if (!is_escape) {
      decoded += text[i];
      continue;
    }
    decoded += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
    i += 2;
  }
  return decoded;
}

// Symbolic links are followed before the comparison: a link may not lead out either.
void check_inside(const fs::path& path, const fs::path& folder) {
  std::error_code code;
  const fs::path real = fs::weakly_canonical(path, code);
  if (code) {
    throw Error({.what = "unusable path", .got = shortened(path.string()), .hint = code.message()});
  }
  const fs::path root = fs::weakly_canonical(folder.empty() ? "." : folder);
  const auto relative = real.lexically_relative(root);
  if (!relative.empty() && *relative.begin() != "..") return;
  throw Error({.what = "file outside of the batch file's folder",
               .got = path.string(),
               .wanted = concat("a file under ", root.string())});
}

}  // namespace

bool MediaRef::operator==(const MediaRef& other) const {
  if (kind != other.kind || is_whole != other.is_whole || name != other.name ||
      archive != other.archive)
    return false;
  if (offset != other.offset || size != other.size || !bytes != !other.bytes) return false;
  return !bytes || bytes == other.bytes || *bytes == *other.bytes;
}

const char* part_type(MediaKind kind) {
  return kind == MediaKind::kVideo ? "video" : "image";
}

MediaRef resolve_medium(const std::string& reference, const MediaRoot& root, MediaKind kind) {
  const bool is_picture = kind == MediaKind::kPicture;
  const bool is_data = reference.starts_with("data:");
  if (is_picture && is_data) return picture_of_data_uri(reference);
  if (is_picture && is_bare_base64(reference)) {
    return picture_of_data_uri("data:image;base64," + reference);
  }
  if (reference.starts_with("http://") || reference.starts_with("https://")) {
    throw Error(
        {.what = concat(is_picture ? "pictures" : "videos", " are not fetched from the network"),
         .got = shortened(reference),
         .wanted = is_picture ? "a file or a data URI" : "a file"});
  }
  const bool is_file_uri = reference.starts_with("file://");
  if (is_data || (!is_file_uri && reference.find("://") != std::string::npos)) {
    throw Error({.what = concat("unknown kind of ", is_picture ? "picture" : "video", " address"),
                 .got = shortened(reference),
                 .wanted = is_picture ? "a path, file:// or a data URI" : "a path or file://"});
  }
  const fs::path path =
      root.folder / (is_file_uri ? decode_percents(reference.substr(7)) : reference);
  if (reference.empty()) throw Error({.what = "an empty path", .wanted = "the path of a file"});
  if (reference.find('\0') != std::string::npos) throw Error({.what = "a NUL byte in the path"});
  if (root.is_confined) check_inside(path, root.folder);
  return {.kind = kind, .name = path.string()};
}

std::string read_bytes(const MediaRef& medium) {
  if (medium.bytes) return *medium.bytes;
  if (medium.archive.empty()) return load_text(medium.name);
  std::ifstream in(medium.archive, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(medium.offset));
  std::string bytes(medium.size, '\0');
  if (!in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw Error({.what = "can't read the file in the archive", .where = medium.name});
  }
  return bytes;
}

Image load_picture(const MediaRef& picture) {
  if (picture.bytes) return decode_image(*picture.bytes, picture.name);
  if (picture.archive.empty()) return load_image(picture.name);
  return decode_image(read_bytes(picture), picture.name);
}

std::string decode_base64(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int count = 0;
  std::size_t digits = 0, padding = 0;
  for (const char c : text) {
    const int value = base64_value(c);
    if (value == kSpace) continue;
    if (value == kPadding) {
      ++padding;
      continue;
    }
    if (value == kNoDigit || padding > 0) throw not_base64(text.size());
    ++digits;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>((bits >> count) & 0xff);
    }
  }
  const bool is_whole = digits % 4 != 1 && (padding == 0 || (digits + padding) % 4 == 0);
  if (!is_whole || padding > 2) throw not_base64(text.size());
  return bytes;
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      bits = (bits << 8) | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      text += i + j > bytes.size() ? '=' : kDigits[(bits >> (18 - 6 * j)) & 63];
    }
  }
  return text;
}

}  // namespace vlm::data
