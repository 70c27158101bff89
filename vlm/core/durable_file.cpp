#include "vlm/core/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <utility>

#include "vlm/core/error.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostOfName = 200;  // bytes; with what is added no name is too long

std::error_code last_error() {
  return {errno, std::generic_category()};
}

Error file_error(const char* what, const fs::path& path, const std::error_code& code) {
  return Error({.what = what, .where = path.string(), .got = code.message()});
}

template <typename Sync>
std::error_code repeat_sync(Sync sync, int descriptor) {
  while (sync(descriptor) != 0) {
    if (errno != EINTR) return last_error();
  }
  return {};
}

std::error_code sync_by_name(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return last_error();
  const std::error_code code = repeat_sync(::fsync, file);
  ::close(file);
  return code;
}

std::error_code sync_names(const fs::path& folder) {
  const std::error_code code = sync_by_name(folder.empty() ? fs::path(".") : folder);
  const bool is_passed_over = code == std::errc::invalid_argument ||
                              code == std::errc::operation_not_supported ||
                              code == std::errc::permission_denied;
  return is_passed_over ? std::error_code() : code;
}

}  // namespace

NewFile::NewFile(fs::path path) : path_(std::move(path)) {
  if (std::error_code ignored; fs::is_directory(path_, ignored)) {
    throw Error({.what = "is a folder, not a file", .where = path_.string()});
  }
  temporary_ = temporary_path(path_);
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file_ < 0) throw file_error("can't write the file", path_, last_error());
}

NewFile::~NewFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

void NewFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw file_error("can't write the file", path_, last_error());
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void NewFile::commit() {
  sync_file(file_, path_);
  commit_without_waiting();
  sync_folder(path_.parent_path());
}

void NewFile::commit_without_waiting() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw file_error("can't write the file", path_, last_error());
  }
  ::close(std::exchange(file_, -1));
}

fs::path temporary_path(const fs::path& path) {
  thread_local std::random_device random;
  const std::uint64_t number = static_cast<std::uint64_t>(random()) << 32 | random();
  char text[32];
  std::snprintf(text, sizeof text, ".tmp%016llx", static_cast<unsigned long long>(number));
  return path.parent_path() / (path.filename().string().substr(0, kMostOfName) + text);
}

void sync_file(int descriptor, const fs::path& path) {
  const std::error_code code = repeat_sync(::fdatasync, descriptor);
  if (code) throw file_error("can't write to the disk", path, code);
}

void sync_file(const fs::path& path) {
  const std::error_code code = sync_by_name(path);
  if (code) throw file_error("can't write to the disk", path, code);
}

void sync_folder(const fs::path& folder) {
  const std::error_code code = sync_names(folder);
  if (code) throw file_error("can't write to the disk", folder, code);
}

void rename_durably(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw file_error("can't rename the file", from, last_error());
  }
  sync_folder(to.parent_path());
}

void make_folders(const fs::path& folder, std::error_code& code) {
  code.clear();
  if (folder.empty() || fs::is_directory(folder, code)) return;
  if (fs::exists(folder, code)) code = std::make_error_code(std::errc::not_a_directory);
  if (code) return;
  const fs::path parent = folder.parent_path();
  if (!parent.empty()) make_folders(parent, code);
  // With a slash at its end the parent was the folder itself.
  const bool is_new = !code && fs::create_directory(folder, code);
  if (is_new && !code) code = sync_names(parent);
}

void make_folders(const fs::path& folder) {
  std::error_code code;
  make_folders(folder, code);
  if (code) throw file_error("can't make the folder", folder, code);
}

}  // namespace vlm
