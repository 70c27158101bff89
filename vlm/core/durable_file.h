// Files that are whole or not there, also after the power went: whoever has been told that a file
// is written finds it.
//
//   bytes ─► NewFile: beside its place ─► commit(): synced, renamed over, folder synced
//
// A reader sees the old file or the new one, never half of one. What is made once and can be made
// again (caches) needs none of this. Every failure is an Error naming the path and the system's
// reason.
#pragma once

#include <filesystem>
#include <string_view>
#include <system_error>

namespace vlm {

class NewFile {
 public:
  // Opens a file with a name of its own in the folder of `path`.
  explicit NewFile(std::filesystem::path path);
  ~NewFile();  // without commit() nothing is left
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(std::string_view bytes);
  int descriptor() const { return file_; }
  // Puts the file in its place, where it stays; or where it is whole but for a power cut.
  void commit();
  void commit_without_waiting();

 private:
  std::filesystem::path path_, aside_;
  int file_ = -1;
};

// A name beside `path` that nobody else takes: neither another process nor another machine that
// shares the file system.
std::filesystem::path name_aside(const std::filesystem::path& path);

// Waits until the disk has what was written to the open file; a signal doesn't cut it short.
void sync_file(int descriptor, const std::filesystem::path& path);

// The same for a file or a folder (its list of names) that isn't open. Folders that may not be
// read, and file systems that can't sync folders, are passed over. An empty folder is the current.
void sync_file(const std::filesystem::path& path);
void sync_folder(const std::filesystem::path& folder);

// Renames over `to`, then waits until the folder is on the disk.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

// Makes the folder with those above it, and waits until the disk has the new ones.
void make_folders(const std::filesystem::path& folder);
void make_folders(const std::filesystem::path& folder, std::error_code& code);

}  // namespace vlm
