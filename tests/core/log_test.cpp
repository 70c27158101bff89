// Messages, their level, and a progress bar below them on a terminal.
#include "vlm/core/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/run/progress.h"

namespace vlm {
namespace {

// While it lives stderr is a terminal of so many columns; taken() is what was written to it.
class Terminal {
 public:
  explicit Terminal(unsigned short columns = 200)
      : master_(::posix_openpt(O_RDWR | O_NOCTTY)), kept_(::dup(STDERR_FILENO)) {
    REQUIRE(::grantpt(master_) == 0);
    REQUIRE(::unlockpt(master_) == 0);
    const int slave = ::open(::ptsname(master_), O_RDWR | O_NOCTTY);
    struct winsize size = {};
    size.ws_col = columns;
    ::ioctl(slave, TIOCSWINSZ, &size);
    ::dup2(slave, STDERR_FILENO);
    ::close(slave);
  }
  ~Terminal() {
    ::dup2(kept_, STDERR_FILENO);
    ::close(kept_);
    ::close(master_);
    set_log_level(LogLevel::kInfo);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // The terminal turns "\n" into "\r\n"; the mark says where to stop.
  std::string taken() const {
    const char mark = '\x01';
    REQUIRE(::write(STDERR_FILENO, &mark, 1) == 1);
    std::string text;
    for (char letter = 0; ::read(master_, &letter, 1) == 1 && letter != mark;) text += letter;
    return text;
  }

 private:
  int master_, kept_;
};

// What a reader sees: "\r\033[K" clears the last line.
std::vector<std::string> shown_lines(const std::string& text) {
  std::vector<std::string> lines(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 4, "\r\033[K") == 0) {
      lines.back().clear();
      i += 3;
    } else if (text[i] == '\n') {
      lines.emplace_back();
    } else if (text[i] != '\r') {
      lines.back() += text[i];
    }
  }
  return lines;
}

TEST_CASE("messages stand above the progress bar, each on a line of its own") {
  const Terminal terminal;
  {
    Progress progress("steps", 4);
    progress.update(1, "loss 0.5");
    log_warning("a sample is skipped");
    log_info("and so it goes");
    progress.update(4, "loss 0.1");
  }
  log_error("the end");
  const auto lines = shown_lines(terminal.taken());
  REQUIRE(lines.size() == 5);
  CHECK(lines[0] == "warning: a sample is skipped");
  CHECK(lines[1] == "and so it goes");
  CHECK_THAT(lines[2], Contains("[########################] 4/4 steps") && Contains("loss 0.1"));
  CHECK(lines[3] == "error: the end");
  CHECK(lines[4].empty());
}

TEST_CASE("a bar is cut to the terminal, between characters") {
  const Terminal terminal(8);
  show_status("ab\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4");
  end_status();
  CHECK(shown_lines(terminal.taken()) ==
        std::vector<std::string>{"ab\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4", ""});
  show_status("abcdefghij");
  end_status();
  CHECK(shown_lines(terminal.taken()) == std::vector<std::string>{"abcdefg", ""});
}

TEST_CASE("the level is that of messages and of progress") {
  const Terminal terminal;
  const auto said_at = [&](LogLevel level) {
    set_log_level(level);
    log_debug("d");
    log_info("i");
    log_warning("w");
    log_error("e");
    {
      Progress progress("steps", 2);
      progress.update(2);
    }
    std::string text;
    for (const std::string& line : shown_lines(terminal.taken())) text += line.substr(0, 8) + "|";
    return text;
  };
  CHECK(said_at(LogLevel::kDebug) == "d|i|warning:|error: e|[#######||");
  CHECK(said_at(LogLevel::kInfo) == "i|warning:|error: e|[#######||");
  CHECK(said_at(LogLevel::kWarning) == "warning:|error: e||");
  CHECK(said_at(LogLevel::kError) == "error: e||");
  CHECK(said_at(LogLevel::kOff) == "|");
}

TEST_CASE("a sink gets progress as messages, and the same warning once") {
  std::vector<std::string> said;
  set_log_sink([&](LogLevel, const std::string& text) { said.push_back(text); });
  {
    Progress progress("steps", 2);
    progress.update(2);
  }
  for (int i = 0; i < 3; ++i) log_warning_once("a sink is told once");
  set_log_sink({});
  REQUIRE(said.size() == 2);
  CHECK_THAT(said[0], Contains("2/2 steps"));
  CHECK(said[1] == "a sink is told once");
}

TEST_CASE("progress beyond its total does no harm") {
  const Terminal terminal;
  {
    Progress progress("kB", 2);
    progress.update(5);
  }
  CHECK_THAT(shown_lines(terminal.taken())[0], Contains("[########################] 5/2 kB"));
}

// 0: told that nobody reads, both at once and when whatever else has failed since.
int write_to_nobody() {
  int ends[2];
  if (::pipe(ends) != 0) return 1;
  ::signal(SIGPIPE, SIG_IGN);
  ::dup2(ends[1], STDOUT_FILENO);
  ::close(ends[0]);
  const auto is_told = [](const auto& write) {
    try {
      write();
    } catch (const ResultsClosed&) {
      return true;
    } catch (const Error&) {
    }
    return false;
  };
  if (!is_told([] { print_result("a line\n"); })) return 2;
  errno = ENOENT;
  return is_told(finish_results) ? 0 : 3;
}

TEST_CASE("why results can't be written is still known at the end") {
  std::fflush(stdout);  // the child has none of it
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(write_to_nobody());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace vlm
