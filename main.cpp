// vlm: the command line. Declares the subcommands, runs the one that was asked for, and turns
// errors into exit codes.
//
// Exit codes: 0 done; 1 an error, told on stderr; 2 wrong usage; 3 done, but some items failed; 130
// interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP; 141 nobody reads the results any more.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "infer/answer_samples.h"
#include "infer/commands/commands.h"
#include "train/commands.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/stop_signal.h"

namespace {

// OpenMP threads that wait for each other spin, by default 300,000 rounds. Where other programs
// want the cores too, the thread they wait for doesn't run meanwhile, and training falls to a tenth
// of its speed. A short spin costs nothing where the cores are free. libgomp reads this only when
// it is loaded, so the program starts itself again with it, unless the user has set how to wait.
// Runs before the libraries set themselves up (0.2 s for LibTorch): nothing but system calls here.
__attribute__((no_sanitize("address", "undefined"))) void limit_spinning(int /*argc*/, char** argv,
                                                                         char** environment) {
  constexpr std::size_t kMost = 4096;
  static char* longer[kMost];
  static char spin_count[] = "GOMP_SPINCOUNT=5000";
  std::size_t count = 0;
  for (; environment[count] != nullptr; ++count) {
    if (count + 2 == kMost) return;
    if (std::strncmp(environment[count], "OMP_WAIT_POLICY=", 16) == 0) return;
    if (std::strncmp(environment[count], "GOMP_SPINCOUNT=", 15) == 0) return;
    longer[count] = environment[count];
  }
  longer[count] = spin_count;
  ::execve("/proc/self/exe", argv, longer);  // returns only where that is not possible
}

__attribute__((section(".preinit_array"),
               used)) void (*const limit_spinning_first)(int, char**, char**) = limit_spinning;

// Options that every command has.
void add_shared_options(CLI::App& command, vlm::RuntimeOptions& runtime, std::string& log_level) {
  command.add_option("--device", runtime.device, "auto, cpu, cuda or cuda:N")
      ->capture_default_str();
  command
      .add_option(
          "--dtype", runtime.dtype,
          "auto, float32, bfloat16 or int8; auto is bfloat16 for models stored so, where the "
          "device is quick with it, else float32; int8 rounds to 8 bits, to run models on "
          "a CPU")
      ->capture_default_str();
  command.add_option("--threads", runtime.threads, "CPU threads; 0: as many as the machine has")
      ->capture_default_str();
  command.add_option("--seed", runtime.seed,
                     "Seed of everything random (default: the config's, or 0)");
  command.add_option("--log-level", log_level, "debug, info, warning, error or off")
      ->capture_default_str();
}

// The trainer's evaluation asks inference here, so that neither includes the other.
std::vector<std::variant<std::string, vlm::Error>> answer(
    const vlm::train::AnswerRequest& request) {
  return vlm::infer::answer_samples(
      request.model, request.processor, request.prompts,
      {.folder = request.folder, .max_new_tokens = request.max_new_tokens, .video = request.video});
}

int run(int argc, char** argv) {
  CLI::App app("Fine-tune and run compact vision-language models", "vlm");
  app.require_subcommand(1);
  app.set_version_flag("--version", VLM_VERSION);

  vlm::RuntimeOptions runtime;
  std::string log_level = "info";
  std::map<std::string, std::function<int()>> commands;
  commands.merge(vlm::train::add_commands(app, runtime, answer));
  commands.merge(vlm::infer::add_commands(app, runtime));
  for (CLI::App* command : app.get_subcommands({})) {
    add_shared_options(*command, runtime, log_level);
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  vlm::set_log_level(vlm::parse_log_level(log_level));
  vlm::watch_for_stop();
  return commands.at(app.get_subcommands().front()->get_name())();
}

// A file that is opened later must not get the number of a stream that the caller has closed: it
// would be written to as one. Opened the wrong way round, so that using them is an error.
void fill_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace

int main(int argc, char** argv) {
  fill_closed_streams();
  try {
    const int code = run(argc, argv);
    vlm::finish_results();
    return code;
  } catch (const vlm::ResultsClosed&) {
    return 128 + SIGPIPE;
  } catch (const vlm::Interrupted&) {
    vlm::log_info("stopped");
    return vlm::stop_exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    // A download that was told to stop ends in an error, too.
    return vlm::stop_requested() ? vlm::stop_exit_code() : 1;
  }
}
