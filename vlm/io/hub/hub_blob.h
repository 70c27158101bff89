// One file of the hub cache: fetched under a lock, verified, then put in its place.
//
//   HubFile ─► blobs/<hash>.incomplete, which grows and survives a kill ─► blobs/<hash>
//
// The lock is flock(2) on .locks/models--org--name/<hash>.lock, as the Python client takes it, so
// both may work on one cache. Where a filesystem has no locks, two processes write the same bytes
// to the same places; what counts is the hash.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>

#include "vlm/core/sha256.h"
#include "vlm/io/hub/hub_client.h"

namespace vlm {

// Holds a lock file's lock as long as it lives.
class FileLock {
 public:
  // Makes the file, and waits while another process holds it. Throws Error when a stop is
  // requested.
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  bool lock_once(const std::filesystem::path& path);

  int file_ = -1;
};

// A download in progress, with the digest of the bytes so far.
class PartialBlob : public HubSink {
 public:
  // `on_bytes` is called with the number of bytes that have come, negative when bytes are dropped.
  PartialBlob(std::filesystem::path path, HubFile file, std::function<void(std::int64_t)> on_bytes);
  ~PartialBlob() override;
  PartialBlob(const PartialBlob&) = delete;
  PartialBlob& operator=(const PartialBlob&) = delete;

  std::int64_t size() const override { return size_; }
  void restart() override;
  // Throws Error for more bytes than the hub has told, and when the disk is full.
  void append(std::string_view bytes) override;

  // Whether hash and size are the hub's. Call it once, at the end.
  bool is_verified();
  void move_to(const std::filesystem::path& blob);
  void remove();

 private:
  void read_existing();
  void write(std::string_view bytes);

  std::filesystem::path path_;
  HubFile file_;
  std::function<void(std::int64_t)> on_bytes_;
  Digest digest_;
  std::int64_t size_ = 0;
  int descriptor_ = -1;
};

// Folders of one model in the cache.
struct HubFolders {
  std::filesystem::path repository;  // <cache>/models--org--name
  std::filesystem::path locks;       // <cache>/.locks/models--org--name

  std::filesystem::path blob(const HubFile& file) const;
  std::filesystem::path partial(const HubFile& file) const;
};

// True when the content is in the cache, with the hub's size.
bool has_blob(const HubFolders& folders, const HubFile& file);

// Fetches the file until has_blob() is true. If a continued download fails verification, the file
// is fetched once more from its beginning; if that fails too, it is removed and an Error is thrown.
void fetch_blob(HubClient& client, const HubName& name, const std::string& commit,
                const HubFile& file, const HubFolders& folders,
                const std::function<void(std::int64_t)>& on_bytes);

// Throws Error with the system's reason when `code` is one.
void check_disk(const std::error_code& code, const char* what, const std::filesystem::path& path);

// Makes the folder and its missing parents. Throws Error when that isn't possible.
void make_folder(const std::filesystem::path& folder);

}  // namespace vlm
