#include "vlm/io/hub/hub_blob.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// The digest whose hex digits are the file's hash, begun.
Digest begin_digest(const HubFile& file) {
  if (file.hash.size() == 64) return Sha256();
  Sha1 digest;  // git hashes a head before the bytes
  digest.update(concat("blob ", file.bytes, '\0'));
  return digest;
}

void check_call(bool is_done, const char* what, const fs::path& path) {
  if (!is_done) check_disk({errno, std::system_category()}, what, path);
}

void stop_if_requested(const fs::path& path) {
  if (stop_requested()) throw Error({.what = "stopped", .where = path.string()});
}

}  // namespace

void check_disk(const std::error_code& code, const char* what, const fs::path& path) {
  if (!code) return;
  const bool is_full = code.value() == ENOSPC || code.value() == EDQUOT || code.value() == EFBIG;
  throw Error({.what = what,
               .where = path.string(),
               .got = code.message(),
               .hint = is_full ? "with more room, the same command goes on where it stopped"
                               : "HF_HUB_CACHE and HF_HOME name the cache"});
}

void make_folder(const fs::path& folder) {
  std::error_code code;
  make_folders(folder, code);
  check_disk(code, "can't make the folder", folder);
}

FileLock::FileLock(const fs::path& path) {
  make_folder(path.parent_path());
  while (!lock_once(path)) ::close(file_);
}

FileLock::~FileLock() {
  ::close(file_);  // and with it the lock; the file stays, others may be waiting on it
}

// False when the file that was locked is no longer the one with that name.
bool FileLock::lock_once(const fs::path& path) {
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
  check_call(file_ >= 0, "can't make the lock file", path);
  bool is_logged = false;
  while (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return true;  // a filesystem without locks
    if (!is_logged) log_info(concat("waiting for another process that holds ", path.string()));
    is_logged = true;
    if (stop_requested()) ::close(file_);
    stop_if_requested(path);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  struct stat locked = {}, named = {};
  return ::fstat(file_, &locked) == 0 && ::stat(path.c_str(), &named) == 0 &&
         locked.st_ino == named.st_ino && locked.st_dev == named.st_dev;
}

PartialBlob::PartialBlob(fs::path path, HubFile file, std::function<void(std::int64_t)> on_bytes)
    : path_(std::move(path)),
      file_(std::move(file)),
      on_bytes_(std::move(on_bytes)),
      digest_(begin_digest(file_)) {
  // Not through a link: nobody else decides where the bytes go.
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  check_call(descriptor_ >= 0, "can't write the file", path_);
  read_existing();
}

PartialBlob::~PartialBlob() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void PartialBlob::read_existing() {
  std::vector<char> block(1 << 20);
  while (size_ <= file_.bytes) {
    stop_if_requested(path_);
    const auto count = ::read(descriptor_, block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    check_call(count >= 0, "can't read the file", path_);
    if (count == 0) return;
    digest_.update({block.data(), static_cast<std::size_t>(count)});
    size_ += count;
  }
  size_ = file_.bytes;  // longer than the file is: none of it counts
  restart();
}

void PartialBlob::restart() {
  check_call(::ftruncate(descriptor_, 0) == 0 && ::lseek(descriptor_, 0, SEEK_SET) == 0,
             "can't write the file", path_);
  on_bytes_(-size_);
  size_ = 0;
  digest_ = begin_digest(file_);
}

void PartialBlob::append(std::string_view bytes) {
  if (static_cast<std::int64_t>(bytes.size()) > file_.bytes - size_) {
    remove();
    throw Error({.what = "the server sends more bytes than the hub has told",
                 .where = file_.name,
                 .wanted = concat(file_.bytes, " bytes")});
  }
  write(bytes);
  digest_.update(bytes);
  size_ += static_cast<std::int64_t>(bytes.size());
  on_bytes_(static_cast<std::int64_t>(bytes.size()));
}

void PartialBlob::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    check_call(count >= 0, "can't write the file", path_);
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

bool PartialBlob::is_verified() {
  return size_ == file_.bytes && digest_.hex_digest() == file_.hash;
}

void PartialBlob::move_to(const fs::path& blob) {
  sync_file(descriptor_, path_);
  std::error_code code;
  fs::rename(path_, blob, code);
  // Gone already: a process that our lock didn't hold back has moved the same bytes there.
  if (code != std::errc::no_such_file_or_directory || !fs::exists(blob)) {
    check_disk(code, "can't move the file to its place", path_);
  }
  sync_folder(blob.parent_path());
}

void PartialBlob::remove() {
  std::error_code ignored;
  fs::remove(path_, ignored);
}

fs::path HubFolders::blob(const HubFile& file) const {
  return repository / "blobs" / file.hash;
}

fs::path HubFolders::partial(const HubFile& file) const {
  return repository / "blobs" / (file.hash + ".incomplete");
}

bool has_blob(const HubFolders& folders, const HubFile& file) {
  std::error_code absent;
  const auto bytes = fs::file_size(folders.blob(file), absent);
  return !absent && bytes == static_cast<std::uintmax_t>(file.bytes);
}

void fetch_blob(HubClient& client, const HubName& name, const std::string& commit,
                const HubFile& file, const HubFolders& folders,
                const std::function<void(std::int64_t)>& on_bytes) {
  if (has_blob(folders, file)) return;
  const FileLock lock(folders.locks / (file.hash + ".lock"));
  make_folder(folders.repository / "blobs");
  while (!has_blob(folders, file)) {  // another process may have brought it meanwhile
    PartialBlob partial(folders.partial(file), file, on_bytes);
    const bool is_resumed = partial.size() > 0;
    client.fetch(name, commit, file, partial);
    if (partial.is_verified()) return partial.move_to(folders.blob(file));
    partial.remove();
    const std::string where = concat(name.repository(), "/", file.name);
    if (!is_resumed) {
      throw Error({.what = "the bytes are not those the hub has told; the file is removed",
                   .where = where,
                   .wanted = concat(file.hash.size() == 64 ? "SHA-256 " : "git blob ", file.hash)});
    }
    log_warning(where + ": what an earlier run had left is damaged; fetching it anew");
    on_bytes(-file.bytes);
  }
}

}  // namespace vlm
