// The files that a run reads. No output may replace one of them. Files are compared by device and
// inode, so a link and another spelling of a path count as the same file.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <unordered_map>

namespace vlm::infer {

class UsedFiles {
 public:
  // A missing file is ignored. Errors call the file by its `role`: "an input".
  void add(const std::filesystem::path& file, const char* role);
  // Adds every file in the folder and its subfolders.
  void add_folder(const std::filesystem::path& folder, const char* role);
  // Adds the files that standard input, output and error are redirected to.
  void add_standard_streams();

  // The role of a file that was added; null for any other and for a missing file.
  const char* role_of(const std::filesystem::path& file) const;

  // Throws Error when the output, or a file of its journal, is one of the added files.
  void check_output(const std::filesystem::path& output) const;
  // The same for one file.
  void check_file(const std::filesystem::path& file) const;

 private:
  std::map<dev_t, std::unordered_map<ino_t, const char*>> files_;
};

}  // namespace vlm::infer
