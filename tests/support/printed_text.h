// What is printed to standard output and error, by anything in the process, while this lives.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"

class PrintedText {
 public:
  PrintedText() {
    std::fflush(stdout);
    const int file = ::open(log_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0600);
    ::dup2(file, STDOUT_FILENO);
    ::dup2(file, STDERR_FILENO);
    ::close(file);
  }
  ~PrintedText() { finish(); }
  PrintedText(const PrintedText&) = delete;
  PrintedText& operator=(const PrintedText&) = delete;

  // Gives the streams back; the text is what was printed until then.
  std::string finish() {
    if (kept_out_ < 0) return text_;
    std::fflush(stdout);
    ::dup2(kept_out_, STDOUT_FILENO);
    ::dup2(kept_error_, STDERR_FILENO);
    ::close(kept_out_);
    ::close(kept_error_);
    kept_out_ = -1;
    return text_ = read_file(log_);
  }

 private:
  ScratchFolder folder_;
  std::string log_ = folder_.at("printed");
  int kept_out_ = ::dup(STDOUT_FILENO), kept_error_ = ::dup(STDERR_FILENO);
  std::string text_;
};
