// Files that survive a crash or a power cut: after commit() returns, the file is on the disk,
// whole.
//
//   bytes ─► NewFile: beside its place ─► commit(): synced, renamed over, folder synced
//
// A reader sees the old file or the new one, never half of one. Caches, whose files can be made
// again, don't need this. Every failure is an Error that names the path and the system's reason.
#pragma once

#include <filesystem>
#include <string_view>
#include <system_error>

namespace vlm {

class NewFile {
 public:
  // Opens a temporary file in the folder of `path`; `path` itself stays as it is until commit().
  explicit NewFile(std::filesystem::path path);
  ~NewFile();  // removes the temporary file unless it was committed
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(std::string_view bytes);
  int descriptor() const { return file_; }
  // Renames the file to `path`. commit() also waits until the disk has it; without waiting, a power
  // cut soon after may lose it.
  void commit();
  void commit_without_waiting();

 private:
  std::filesystem::path path_, temporary_;
  int file_ = -1;
};

// A path in the folder of `path` that no other process uses, also on other machines that share the
// file system.
std::filesystem::path temporary_path(const std::filesystem::path& path);

// fsync: waits until the disk has what was written to the open file, also when signals come
// meanwhile. `path` is for errors.
void sync_file(int descriptor, const std::filesystem::path& path);

// The same for a file or a folder that isn't open; of a folder the list of its names. Does nothing
// for folders that may not be read, and on file systems that can't sync folders. An empty folder
// path means the current folder.
void sync_file(const std::filesystem::path& path);
void sync_folder(const std::filesystem::path& folder);

// Renames over `to`, then waits until the folder is on the disk.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

// Makes the folder and its missing parents, and waits until the disk has them. Throws Error, or
// sets `code`.
void make_folders(const std::filesystem::path& folder);
void make_folders(const std::filesystem::path& folder, std::error_code& code);

}  // namespace vlm
