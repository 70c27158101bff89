// Signals that ask a program to stop, in children of the test: handlers are the process's.
#include "vlm/core/run/stop_signal.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "tests/support/catch.h"

namespace vlm {
namespace {

// The exit code of a child that does `work`; 128 + signal where one ended it.
int run_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(work());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_CASE("each signal asks to stop, and has its exit code") {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    CHECK(run_child([signal] {
            watch_for_stop();
            if (stop_requested()) return 1;
            ::raise(signal);
            return stop_requested() ? stop_exit_code() : 2;
          }) == 128 + signal);
  }
}

TEST_CASE("the same request twice at once is one; later it ends the program, but for SIGHUP") {
  const auto twice = [](int signal, int between_ms) {
    return run_child([=] {
      watch_for_stop();
      ::raise(signal);
      ::usleep(static_cast<useconds_t>(between_ms) * 1000);
      ::raise(signal);
      return 7;
    });
  };
  CHECK(twice(SIGTERM, 0) == 7);
  CHECK(twice(SIGINT, 0) == 7);
  CHECK(twice(SIGTERM, 400) == 128 + SIGTERM);
  CHECK(twice(SIGINT, 400) == 128 + SIGINT);
  CHECK(twice(SIGHUP, 400) == 7);
}

TEST_CASE("a hang-up that nohup has the program ignore stays ignored") {
  CHECK(run_child([] {
          std::signal(SIGHUP, SIG_IGN);
          watch_for_stop();
          ::raise(SIGHUP);
          return stop_requested() ? 1 : 0;
        }) == 0);
}

TEST_CASE("work without an end of its own is thrown out of, as no Error") {
  CHECK_NOTHROW(throw_if_stopped());
  request_stop(SIGHUP);
  CHECK_THROWS_AS(throw_if_stopped(), Interrupted);
  CHECK(stop_exit_code() == 129);
  request_stop(0);
  CHECK_NOTHROW(throw_if_stopped());
  CHECK(stop_exit_code() == 143);
}

}  // namespace
}  // namespace vlm
