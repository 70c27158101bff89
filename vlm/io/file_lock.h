// Advisory locks (flock) that let one program at a time use a file or folder; they end with the
// process, however it ends.
//
// They hold between processes of one machine, and between machines where the file system has them
// (NFS, Lustre with -o flock). On a file system without locks a warning is logged once.
#pragma once

#include <filesystem>
#include <string>

namespace vlm {

// Takes the exclusive lock of an open file without waiting; false when another has it. The lock
// lasts until the file is closed. Throws Error naming `path` when the file can't be locked.
bool try_lock(int file, const std::filesystem::path& path);

// A folder that one program at a time writes to. The folder is made; its lock is the file
// "run.lock" in it, which says who holds it and goes away with the lock, as does a folder that was
// made and stayed empty.
class FolderLock {
 public:
  // `hint` says what to do instead. Throws Error with it when another program has the lock.
  FolderLock(const std::filesystem::path& folder, const std::string& hint);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_, path_;
  bool is_new_ = false;  // the folder
  int file_ = -1;
};

inline constexpr const char* kLockFile = "run.lock";

}  // namespace vlm
