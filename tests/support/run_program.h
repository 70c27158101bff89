// Runs a shell command and collects what it leaves behind. For end-to-end tests.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/support/scratch_folder.h"

struct ProgramResult {
  int code = 0;  // exit code, or 128 + signal
  std::string out, err;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// `command` is given to bash, in the folder `place`.
inline ProgramResult run_shell(const std::string& command, const std::filesystem::path& place) {
  const ScratchFolder logs;
  const auto script = logs.path() / "script";
  std::ofstream(script) << "cd '" << place.string() << "'\nset -e\n" << command << "\n";
  const std::string call = "bash '" + script.string() + "' >'" + (logs.path() / "out").string() +
                           "' 2>'" + (logs.path() / "err").string() + "' </dev/null";
  const int status = std::system(call.c_str());
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, read_file(logs.path() / "out"), read_file(logs.path() / "err")};
}

// The program under test with its arguments.
inline ProgramResult run_vlm(const std::string& arguments,
                             const std::filesystem::path& place = VLM_SOURCE_DIR) {
  return run_shell(std::string("exec '") + VLM_BINARY + "' " + arguments, place);
}
