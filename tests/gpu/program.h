// The program's own main in this process, as its users call it: so that the device's counts and
// memory can be looked at, and models on the CPU and on the GPU come one after the other.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"

int vlm_main(int argc, char** argv);  // of main.cpp

namespace vlm {

// Sends a stream of this process to a file while it lives.
class Redirection {
 public:
  Redirection(int stream, const std::string& file) : stream_(stream), before_(::dup(stream)) {
    std::fflush(nullptr);
    const int to = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(to, stream_);
    ::close(to);
  }
  ~Redirection() {
    std::fflush(nullptr);
    ::dup2(before_, stream_);
    ::close(before_);
  }
  Redirection(const Redirection&) = delete;
  Redirection& operator=(const Redirection&) = delete;

 private:
  int stream_, before_;
};

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
