// The program as a child of the test without a new start of it: LibTorch takes 0.3 s to load, and
// a draw runs the program ten times. The child is a copy of the test, which has the libraries
// loaded and has never called them, and goes through main.cpp's main from its first line to its
// exit.
//
// The test must have no other threads and must call nothing of LibTorch itself.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/support/child_process.h"

int vlm_main(int argc, char** argv);  // of main.cpp

namespace vlm {

struct ProgramCall {
  std::vector<std::string> arguments;
  std::filesystem::path log;    // gets stdout and stderr
  std::filesystem::path place;  // the current folder
  std::filesystem::path input = "/dev/null";
  std::map<std::string, std::string> variables = {};
};

class ForkedProgram : public ChildProcess {
 public:
  explicit ForkedProgram(const ProgramCall& call)
      : ChildProcess(fork_program(call)), log_(call.log) {}
  const std::filesystem::path& log() const { return log_; }

 private:
  static pid_t fork_program(const ProgramCall& call) {
    std::fflush(nullptr);  // or the child would write it again
    sigset_t all, before;
    ::sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, &before);  // a signal may come before the handlers are gone
    const pid_t child = ::fork();
    if (child == 0) {
      for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);  // not the test's
    }
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    if (child == 0) run_child(call);
    return child;
  }

  [[noreturn]] static void run_child(const ProgramCall& call) {
    const int out = ::open(call.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int in = ::open(call.input.c_str(), O_RDONLY);
    if (out < 0 || in < 0 || ::chdir(call.place.c_str()) != 0) ::_exit(127);
    ::dup2(in, 0);
    ::dup2(out, 1);
    ::dup2(out, 2);
    for (const auto& [name, value] : call.variables) ::setenv(name.c_str(), value.c_str(), 1);
    std::vector<std::string> words = {"vlm"};
    words.insert(words.end(), call.arguments.begin(), call.arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::exit(vlm_main(static_cast<int>(words.size()), argv.data()));
  }

  std::filesystem::path log_;
};

}  // namespace vlm
