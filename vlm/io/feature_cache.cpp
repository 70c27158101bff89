#include "vlm/io/feature_cache.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/safetensors.h"
#include "vlm/io/tensor_digest.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using FileTime = fs::file_time_type;

constexpr ssize_t kTotalBytes = 21;  // of the running total, as 20 digits and a line end
constexpr const char* kSuffix = ".safetensors";
constexpr auto kLeftoverAge = std::chrono::hours(1);         // no write aside takes that long
constexpr auto kCoarsestFileTime = std::chrono::seconds(2);  // of the file systems in use

struct StoredEntry {
  fs::path path;
  std::uint64_t bytes = 0;
  FileTime used_at;
};

// Every entry of the folder. Files that others remove meanwhile are left out.
std::vector<StoredEntry> list_entries(const fs::path& folder) {
  std::vector<StoredEntry> entries;
  std::error_code code;
  for (const auto& shelf : fs::directory_iterator(folder, code)) {
    if (shelf.path().filename().string().size() != 2) continue;
    std::error_code gone;
    for (const auto& file : fs::directory_iterator(shelf.path(), gone)) {
      if (file.path().extension() != kSuffix) continue;
      std::error_code no_size, no_time;
      StoredEntry entry{file.path(), file.file_size(no_size), file.last_write_time(no_time)};
      if (!no_size && !no_time) entries.push_back(std::move(entry));
    }
  }
  return entries;
}

std::uint64_t total_bytes(const std::vector<StoredEntry>& entries) {
  std::uint64_t total = 0;
  for (const StoredEntry& entry : entries) total += entry.bytes;
  return total;
}

// What a crash left in the folder for unfinished files. Younger ones may be another run's.
void remove_leftovers(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored)) {
    std::error_code gone;
    const FileTime written_at = file.last_write_time(gone);
    if (!gone && FileTime::clock::now() - written_at > kLeftoverAge) fs::remove(file.path(), gone);
  }
}

void touch(const fs::path& path) {
  std::error_code ignored;  // a folder that can only be read has no order to keep
  fs::last_write_time(path, FileTime::clock::now(), ignored);
}

at::Tensor to_bytes(const std::string& text) {
  at::Tensor bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return bytes;
}

std::string to_text(const at::Tensor& bytes) {
  const at::Tensor flat = bytes.contiguous();
  return {static_cast<const char*>(flat.const_data_ptr()), flat.nbytes()};
}

// What an entry's file holds. An empty note takes no place.
NamedTensors to_tensors(const std::string& key, const CachedFeatures& entry) {
  NamedTensors digested = {{key, entry.features}};
  NamedTensors tensors = {{"features", entry.features}};
  if (!entry.note.empty()) {
    tensors.emplace_back("note", to_bytes(entry.note));
    digested.push_back(tensors.back());
  }
  tensors.emplace_back("checksum", to_bytes(digest_tensors(digested)));
  return tensors;
}

// Throws Error for an entry that isn't what was stored under the key.
CachedFeatures read_entry(const fs::path& path, const std::string& key) {
  CachedFeatures entry;
  std::string checksum;
  for (const auto& [name, tensor] : read_safetensors(path)) {
    if (name == "features") entry.features = tensor;
    if (name == "checksum" && tensor.scalar_type() == at::kByte) checksum = to_text(tensor);
    if (name == "note" && tensor.scalar_type() == at::kByte) entry.note = to_text(tensor);
  }
  const bool is_whole =
      entry.features.defined() && to_text(to_tensors(key, entry).back().second) == checksum;
  if (!is_whole) throw Error({.what = "checksum differs", .where = path.string()});
  return entry;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

// The folder's lock, held by one thread of one process; its file holds the running total. Opened
// each time, so that a forked process has a lock of its own.
class FeatureCache::Lock {
 public:
  explicit Lock(const fs::path& folder)
      : path_(folder / "lock"), file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (file_ < 0) throw failure();
    while (::flock(file_, LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      const Error error = failure();
      ::close(file_);
      throw error;
    }
  }
  ~Lock() { ::close(file_); }  // unlocks
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

  // Nothing when no run has written it yet, or one was stopped while it did.
  std::optional<std::uint64_t> total() const {
    char text[kTotalBytes];
    std::uint64_t total = 0;
    if (::pread(file_, text, kTotalBytes, 0) != kTotalBytes) return std::nullopt;
    const auto parsed = std::from_chars(text, text + kTotalBytes, total);
    if (parsed.ptr != text + kTotalBytes - 1 || *parsed.ptr != '\n') return std::nullopt;
    return total;
  }

  // Always of the same length: cutting a file to nothing first makes ext4 write it out at once.
  void set_total(std::uint64_t bytes) {
    char text[kTotalBytes + 1];
    std::snprintf(text, sizeof text, "%020llu\n", static_cast<unsigned long long>(bytes));
    if (::pwrite(file_, text, kTotalBytes, 0) != kTotalBytes) throw failure();
  }

 private:
  Error failure() const {
    return Error(
        {.what = "can't keep the lock", .where = path_.string(), .got = std::strerror(errno)});
  }

  fs::path path_;
  int file_;
};

FeatureCache::FeatureCache(fs::path folder, std::uint64_t max_bytes,
                           const FeatureCacheOptions& options)
    : folder_(std::move(folder)),
      max_bytes_(max_bytes),
      options_(options),
      opened_at_(FileTime::clock::now() - kCoarsestFileTime) {
  try {
    if (folder_.empty()) throw Error({.what = "no folder is named, and HOME isn't set"});
    fs::create_directories(folder_ / "tmp");
    remove_leftovers(folder_ / "tmp");
  } catch (const std::exception& error) {
    stop_storing(error.what());
  }
}

fs::path FeatureCache::entry_path(const std::string& key) const {
  const bool is_hex = key.find_first_not_of("0123456789abcdef") == std::string::npos;
  TORCH_CHECK(is_hex && key.size() >= 8, "not a key of a feature cache: ", key);
  return folder_ / key.substr(0, 2) / (key + kSuffix);
}

std::optional<at::Tensor> FeatureCache::find(const std::string& key) {
  auto entry = find_with_note(key);
  if (!entry) return std::nullopt;
  return std::move(entry->features);
}

std::optional<CachedFeatures> FeatureCache::find_with_note(const std::string& key) {
  const fs::path path = entry_path(key);
  std::error_code code;
  if (fs::exists(path, code)) {
    try {
      CachedFeatures entry = read_entry(path, key);
      touch(path);
      ++hits_;
      return entry;
    } catch (const Error& error) {
      drop(path, error.what());
    }
  }
  ++misses_;
  return std::nullopt;
}

void FeatureCache::store(const std::string& key, const at::Tensor& features,
                         const std::string& note) {
  const fs::path path = entry_path(key);
  if (!is_storing_ || features.nbytes() > max_bytes_) return;
  const fs::path aside =
      folder_ / "tmp" / concat(key, ".", ::getpid(), ".", std::random_device()(), ".", ++asides_);
  std::error_code ignored;
  try {
    const at::Tensor flat = features.detach().cpu().contiguous();
    write_safetensors(aside, to_tensors(key, {flat, note}));
    place(aside, path);
  } catch (const std::exception& error) {  // Error, or std::filesystem's
    stop_storing(error.what());
  }
  fs::remove(aside, ignored);  // where it didn't become an entry
}

// The total counts the entry before it is there: after a crash in between it is too large, which
// the next eviction mends; too small, it would let the folder grow.
void FeatureCache::place(const fs::path& aside, const fs::path& entry) {
  const std::uint64_t bytes = fs::file_size(aside);
  fs::create_directories(entry.parent_path());
  const std::lock_guard threads(mutex_);
  Lock lock(folder_);
  if (fs::exists(entry)) return touch(entry);
  if (!is_storing_ || bytes > max_bytes_) return;
  if (!make_room(lock, bytes)) {
    is_storing_ = false;
    log_info(concat("the feature cache is full of pictures in use; no more are stored in ",
                    folder_.string()));
    return;
  }
  touch(aside);
  fs::rename(aside, entry);
}

// Adds `bytes` to the total, removing the least recently used entries when it passes the bound.
// A tenth more than needed is freed, so that the folder is seldom listed. False: no room.
bool FeatureCache::make_room(Lock& lock, std::uint64_t bytes) {
  std::optional<std::uint64_t> total = lock.total();
  if (!total || *total + bytes > max_bytes_) {
    std::vector<StoredEntry> entries = list_entries(folder_);
    total = total_bytes(entries);
    if (*total + bytes > max_bytes_) {
      std::sort(entries.begin(), entries.end(),
                [](const auto& a, const auto& b) { return a.used_at < b.used_at; });
      const std::uint64_t wanted = std::min(max_bytes_ - max_bytes_ / 10, max_bytes_ - bytes);
      for (const StoredEntry& entry : entries) {
        const bool is_used = options_.keep_used && entry.used_at >= opened_at_;
        if (*total <= wanted || is_used) break;
        std::error_code code;
        fs::remove(entry.path, code);
        if (!code) *total -= entry.bytes;
      }
    }
  }
  const bool has_room = *total + bytes <= max_bytes_;
  lock.set_total(*total + (has_room ? bytes : 0));
  return has_room;
}

void FeatureCache::drop(const fs::path& entry, const std::string& reason) {
  log_debug(concat("feature cache: entry dropped: ", reason));
  try {
    const std::lock_guard threads(mutex_);
    Lock lock(folder_);
    const std::uint64_t bytes = fs::file_size(entry);
    const std::optional<std::uint64_t> total = lock.total();
    if (fs::remove(entry) && total) lock.set_total(*total - std::min(*total, bytes));
  } catch (const std::exception& error) {
    log_debug(concat("feature cache: ", error.what()));  // gone already, or a read-only folder
  }
}

void FeatureCache::stop_storing(const std::string& reason) {
  if (!is_storing_.exchange(false)) return;
  log_warning("the feature cache stores no more: " + reason);
}

fs::path default_feature_cache_folder() {
  if (const auto own = environment("VLM_CACHE"); !own.empty()) return fs::path(own) / "features";
  if (const auto xdg = environment("XDG_CACHE_HOME"); !xdg.empty()) {
    return fs::path(xdg) / "vlm/features";
  }
  const auto home = environment("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache/vlm/features";
}

}  // namespace vlm
