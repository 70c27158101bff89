// Files that a run reads, so that nothing it writes replaces one of them: compared by device and
// inode, so links and other spellings of a name are the same file.
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
  // What isn't there is nothing that could be replaced. `role` is what errors call it: "an input".
  void add(const std::filesystem::path& file, const char* role);
  // Every file below it.
  void add_folder(const std::filesystem::path& folder, const char* role);
  // What standard input, output and error were redirected to, where those are files.
  void add_standard_streams();

  // The file's role; null when it is none of them, or not there.
  const char* role_of(const std::filesystem::path& file) const;

  // Throws Error when an output of this name, or a file of its journal, is one of them.
  void check_output(const std::filesystem::path& output) const;
  // The same for one file.
  void check_file(const std::filesystem::path& file) const;

 private:
  std::map<dev_t, std::unordered_map<ino_t, const char*>> files_;
};

}  // namespace vlm::infer
