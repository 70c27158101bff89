// What is printed to standard output and error, by anything in the process, while this lives.
#pragma once

#include <unistd.h>

#include <optional>
#include <string>

#include "tests/support/redirection.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"

class PrintedText {
 public:
  PrintedText()
      : out_(std::in_place, STDOUT_FILENO, log_), error_(std::in_place, STDERR_FILENO, log_) {}

  // Gives the streams back; the text is what was printed until then.
  std::string finish() {
    error_.reset();
    out_.reset();
    return read_file(log_);
  }

 private:
  ScratchFolder folder_;
  std::string log_ = folder_.at("printed");
  std::optional<Redirection> out_, error_;
};
