// Picture features on disk, across runs: a picture that was encoded once is read instead.
//
//   key (hex) ─► find ─► features as they were stored, to the bit, or nothing
//   key, features ─► store ─► FOLDER/ab/ab12….safetensors
//
// The caller makes the key from everything that the features depend on: digests of the tiles, of
// the vision weights and of their config (tensor_digest.h), the dtype and the kind of device. An
// entry holds "features", perhaps a "note" (text about them, as the times of a clip's frames), and
// a "checksum" of both; a damaged entry is removed and counts as a miss. Entries are written aside
// and renamed, so a crash leaves at most a file in FOLDER/tmp, which a later run removes.
//
// When the folder grows over its bound, the least recently used entries (by mtime) are removed
// first. Several runs may share the folder: a lock (flock) guards its total size and the removals.
// Nothing here fails a run: where the folder can't be written or the disk is full, one warning is
// logged and nothing more is stored. Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>

namespace vlm {

struct FeatureCacheOptions {
  // Entries that were used since this object was made are not removed. So a run over more pictures
  // than fit keeps the first ones for the next run, instead of replacing entries all the time.
  // False for programs that never end.
  bool keep_used = true;
};

struct CachedFeatures {
  at::Tensor features;  // on the CPU
  std::string note;     // as it was stored
};

class FeatureCache {
 public:
  // Makes the folder where it is missing. `max_bytes` bounds the entries' files.
  FeatureCache(std::filesystem::path folder, std::uint64_t max_bytes,
               const FeatureCacheOptions& options = {});

  // The features on the CPU, or nothing. `key`: at least 8 hex digits in lower case.
  std::optional<at::Tensor> find(const std::string& key);
  std::optional<CachedFeatures> find_with_note(const std::string& key);

  // Stores features of any dtype that safetensors files hold. Does nothing when there is an entry.
  void store(const std::string& key, const at::Tensor& features, const std::string& note = "");

  std::uint64_t hits() const { return hits_; }
  std::uint64_t misses() const { return misses_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  class Lock;
  std::filesystem::path entry_path(const std::string& key) const;
  void place(const std::filesystem::path& aside, const std::filesystem::path& entry);
  bool make_room(Lock& lock, std::uint64_t bytes);
  void drop(const std::filesystem::path& entry, const std::string& reason);
  void stop_storing(const std::string& reason);

  const std::filesystem::path folder_;
  const std::uint64_t max_bytes_;
  const FeatureCacheOptions options_;
  const std::filesystem::file_time_type opened_at_;
  std::mutex mutex_;  // between this object's threads; Lock is between processes
  std::atomic<bool> is_storing_{true};
  std::atomic<std::uint64_t> hits_{0}, misses_{0}, asides_{0};
};

// Where the cache is when nobody names a folder: $VLM_CACHE/features, $XDG_CACHE_HOME/vlm/features
// or ~/.cache/vlm/features. Empty when none of the variables is set.
std::filesystem::path default_feature_cache_folder();

inline constexpr std::uint64_t kDefaultFeatureCacheBytes = 10'000'000'000;

}  // namespace vlm
