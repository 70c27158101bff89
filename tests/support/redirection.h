// A stream of this process, sent to the end of a file while this lives.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <string>

class Redirection {
 public:
  Redirection(int stream, const std::string& file) : stream_(stream), before_(::dup(stream)) {
    std::fflush(nullptr);
    const int to = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
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
