// The program's own main in this process, as its users call it: so that the device's counts and
// memory can be looked at, and models on the CPU and on the GPU come one after the other.
#pragma once

#include <unistd.h>

#include <string>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/redirection.h"
#include "tests/support/run_program.h"

int vlm_main(int argc, char** argv);  // of main.cpp

namespace vlm {

inline ProgramResult run_here(const std::vector<std::string>& arguments) {
  const ScratchFolder logs;
  std::vector<std::string> words = {"vlm"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int code = 0;
  {
    const Redirection out(STDOUT_FILENO, logs.at("out")), err(STDERR_FILENO, logs.at("err"));
    code = vlm_main(static_cast<int>(words.size()), argv.data());
  }
  return {code, read_file(logs.at("out")), read_file(logs.at("err"))};
}

// stdout of a call that must succeed.
inline std::string output_of(const std::vector<std::string>& arguments) {
  const ProgramResult result = run_here(arguments);
  std::string line;
  for (const std::string& word : arguments) line += " " + word;
  INFO("vlm" << line << "\n" << result.err);
  REQUIRE(result.code == 0);
  return result.out;
}

}  // namespace vlm
