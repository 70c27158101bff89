// The program under test as a child that runs beside the test: signals, exit codes, variables.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

extern char** environ;

class ChildProcess {
 public:
  // Runs `program` with the arguments; stdout and stderr go to the file `log`.
  ChildProcess(const std::vector<std::string>& arguments, const std::filesystem::path& log,
               const std::map<std::string, std::string>& variables = {},
               const std::string& program = VLM_BINARY) {
    std::vector<std::string> words = {program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<std::string> settings;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string text = *entry;
      if (!variables.count(text.substr(0, text.find('=')))) settings.push_back(text);
    }
    for (const auto& [name, value] : variables) settings.push_back(name + "=" + value);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    const int code = ::posix_spawn(&id_, program.c_str(), &files, nullptr, pointers(words).data(),
                                   pointers(settings).data());
    posix_spawn_file_actions_destroy(&files);
    if (code != 0) id_ = -1;
  }
  ~ChildProcess() {
    kill(SIGKILL);
    wait();
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void kill(int signal) const {
    if (id_ > 0 && !code_) ::kill(id_, signal);
  }
  // Exit code, or 128 + signal.
  int wait() {
    while (!is_done()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return *code_;
  }
  bool is_done() {
    if (code_ || id_ <= 0) return code_ = code_.value_or(-1), true;
    int status = 0;
    if (::waitpid(id_, &status, WNOHANG) != id_) return false;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
  }
  // False when the child ended before.
  bool is_running_after(std::chrono::milliseconds time) {
    const auto until = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < until) {
      if (is_done()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return !is_done();
  }

 protected:
  explicit ChildProcess(pid_t id) : id_(id) {}

 private:
  static std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> all;
    for (std::string& text : texts) all.push_back(text.data());
    all.push_back(nullptr);
    return all;
  }

  pid_t id_ = -1;
  std::optional<int> code_;
};
