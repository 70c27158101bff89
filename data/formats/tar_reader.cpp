#include "data/formats/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <filesystem>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::data {
namespace {

constexpr std::uint64_t kBlock = 512;

}  // namespace

struct TarReader::State {
  std::string path;
  archive* handle = nullptr;
  std::uint64_t file_size = 0, end = 0;

  ~State() { ::archive_read_free(handle); }

  [[noreturn]] void fail() const {
    const char* reason = ::archive_error_string(handle);
    throw Error({.what = "can't read the archive",
                 .where = path,
                 .got = reason ? reason : "",
                 .wanted = "a tar in ustar, GNU or pax format"});
  }

  [[noreturn]] void truncated() const {
    throw Error({.what = "the archive is truncated",
                 .where = path,
                 .got = concat(file_size, " bytes"),
                 .wanted = concat("at least ", end + kBlock)});
  }

  // A file cut between two members looks whole but for the missing block of zeros.
  void check_end() const {
    if (file_size < end + kBlock) truncated();
  }
};

TarReader::TarReader(const std::string& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->handle = ::archive_read_new();
  state_->file_size = std::filesystem::file_size(path);
  ::archive_read_support_filter_all(state_->handle);  // to tell a compressed one from a broken one
  ::archive_read_support_format_tar(state_->handle);
  const int code = ::archive_read_open_filename(state_->handle, path.c_str(), 1 << 16);
  if (code != ARCHIVE_OK) state_->fail();
}

TarReader::~TarReader() = default;

bool TarReader::next(TarMember& member) {
  State& state = *state_;
  for (;;) {
    archive_entry* entry = nullptr;
    const int code = ::archive_read_next_header(state.handle, &entry);
    if (code == ARCHIVE_EOF) {
      state.check_end();
      return false;
    }
    if (code < ARCHIVE_WARN) state.fail();
    if (::archive_filter_count(state.handle) != 1) {
      throw Error(
          {.what = "the archive is compressed", .where = state.path, .wanted = "a plain .tar"});
    }
    const std::uint64_t begin = static_cast<std::uint64_t>(::archive_filter_bytes(state.handle, 0));
    const std::uint64_t size = static_cast<std::uint64_t>(::archive_entry_size(entry));
    state.end = begin + (size + kBlock - 1) / kBlock * kBlock;
    if (begin + size > state.file_size) state.truncated();
    if (::archive_entry_filetype(entry) != AE_IFREG || ::archive_entry_hardlink(entry)) continue;
    const char* name = ::archive_entry_pathname(entry);
    // The locale may not be able to hold a name in UTF-8.
    if (!name) name = ::archive_entry_pathname_utf8(entry);
    member = {.name = name ? name : "", .offset = begin, .size = size};
    if (member.name.starts_with("./")) member.name.erase(0, 2);
    return true;
  }
}

std::string text_member(const std::string& bytes, const std::string& where) {
  std::string text = bytes.substr(mark_size(bytes, where));
  check_no_nul(text, where);
  if (is_valid_utf8(text)) return text;
  throw Error({.what = "the text is not UTF-8", .where = where});
}

std::pair<std::string, std::string> split_member_name(const std::string& name) {
  const auto slash = name.rfind('/');
  const auto dot = name.find('.', slash == std::string::npos ? 0 : slash + 1);
  if (dot == std::string::npos) return {name, ""};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

}  // namespace vlm::data
