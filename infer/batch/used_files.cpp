#include "infer/batch/used_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <system_error>
#include <utility>

#include "infer/batch/row_log.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {

namespace fs = std::filesystem;

void UsedFiles::add(const fs::path& file, const char* role) {
  struct stat status = {};
  if (::stat(file.c_str(), &status) != 0) return;
  files_[status.st_dev].emplace(status.st_ino, role);
}

void UsedFiles::add_folder(const fs::path& folder, const char* role) {
  std::error_code code;
  fs::recursive_directory_iterator entry(folder, fs::directory_options::skip_permission_denied,
                                         code);
  for (; !code && entry != fs::recursive_directory_iterator(); entry.increment(code)) {
    add(entry->path(), role);
  }
}

void UsedFiles::add_standard_streams() {
  const std::pair<int, const char*> streams[] = {
      {STDIN_FILENO, "the file that standard input reads"},
      {STDOUT_FILENO, "the file that standard output goes to"},
      {STDERR_FILENO, "the file that standard error goes to"}};
  for (const auto& [stream, role] : streams) {
    struct stat status = {};
    if (::fstat(stream, &status) != 0 || !S_ISREG(status.st_mode)) continue;
    files_[status.st_dev].emplace(status.st_ino, role);
  }
}

const char* UsedFiles::role_of(const fs::path& file) const {
  struct stat status = {};
  if (::stat(file.c_str(), &status) != 0) return nullptr;
  const auto device = files_.find(status.st_dev);
  if (device == files_.end()) return nullptr;
  const auto found = device->second.find(status.st_ino);
  return found == device->second.end() ? nullptr : found->second;
}

void UsedFiles::check_output(const fs::path& output) const {
  for (const fs::path& file : files_of_output(resolve_output(output))) check_file(file);
}

void UsedFiles::check_file(const fs::path& file) const {
  const char* role = role_of(file);
  if (!role) return;
  throw Error({.what = concat("the output would replace ", role),
               .where = file.string(),
               .hint = "choose another --output"});
}

}  // namespace vlm::infer
