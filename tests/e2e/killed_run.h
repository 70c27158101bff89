// Runs of the program that are killed while they write rows.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace vlm {

inline std::uintmax_t size_of(const std::filesystem::path& path) {
  std::error_code code;
  const auto size = std::filesystem::file_size(path, code);
  return code ? 0 : size;
}

inline pid_t start(const std::string& arguments) {
  std::istringstream in(arguments);
  std::vector<std::string> words = {VLM_BINARY};
  for (std::string word; in >> word;) words.push_back(word);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child != 0) return child;
  const int nowhere = ::open("/dev/null", O_RDWR);
  for (const int stream : {0, 1, 2}) ::dup2(nowhere, stream);
  if (::chdir(VLM_SOURCE_DIR) == 0) ::execv(VLM_BINARY, argv.data());
  ::_exit(127);
}

// Starts the run, and kills it a random moment after its journal grew by some rows. True when it
// was killed, false when it ended before.
inline bool kill_at_random(const std::string& arguments, const std::filesystem::path& output,
                           std::mt19937& random) {
  const std::filesystem::path journal = output.string() + ".journal";
  const auto wanted = size_of(journal) + random() % 8 * 32;  // 32 bytes a row
  const pid_t child = start(arguments);
  int status = 0;
  while (size_of(journal) <= wanted && ::waitpid(child, &status, WNOHANG) == 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(300));
  }
  std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
  ::kill(child, SIGKILL);
  if (::waitpid(child, &status, 0) < 0) return false;  // it was waited for above
  return WIFSIGNALED(status);
}

}  // namespace vlm
