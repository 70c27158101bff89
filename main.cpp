// vlm: the command line. Declares the subcommands, runs the one that was asked for, and turns
// errors into exit codes.
//
// Exit codes: 0 done; 1 an error, told on stderr; 2 wrong usage; 3 done, but some items failed; 130
// interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP; 141 nobody reads the results any more.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/resource.h>
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
#include "infer/server/doors/mcp_command.h"
#include "infer/server/serve_command.h"
#include "train/commands.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/error_text.h"

// OpenMP threads that wait for each other spin, by default 300,000 rounds. Where other programs
// want the cores too, the thread they wait for doesn't run meanwhile, and training falls to a tenth
// of its speed. A short spin costs nothing where the cores are free. libgomp has no call to set
// this, and asks for the variable while it is loaded, before any code of this program runs. So the
// program's own getenv answers it, unless the user has set how to wait; all else is libc's.
extern "C" char* getenv(const char* name) noexcept {
  using Lookup = char* (*)(const char*);
  static const auto lookup = reinterpret_cast<Lookup>(::dlsym(RTLD_NEXT, "getenv"));
  static char spin_count[] = "5000";
  char* value = lookup(name);
  const bool is_asked = value == nullptr && std::strcmp(name, "GOMP_SPINCOUNT") == 0;
  return is_asked && lookup("OMP_WAIT_POLICY") == nullptr ? spin_count : value;
}

namespace {

// Options of all commands, where they are used.
struct SharedOptions {
  vlm::RuntimeOptions runtime;
  std::string log_level = "info";
  bool is_quiet = false;
};

// What of RuntimeOptions each command uses. Others are refused there as unknown.
const std::map<std::string, std::vector<std::string>> kUsed = {
    {"finetune", {"--device", "--dtype", "--threads", "--seed"}},
    {"plan", {"--device", "--dtype", "--threads", "--seed"}},
    {"inspect-data", {"--threads", "--seed"}},
    {"init-config", {}},
    {"merge", {"--dtype", "--threads"}},
    {"generate", {"--device", "--dtype", "--threads", "--seed"}},
    {"caption", {"--device", "--dtype", "--threads", "--seed"}},
    {"vqa", {"--device", "--dtype", "--threads", "--seed"}},
    {"video", {"--device", "--dtype", "--threads", "--seed"}},
    {"evaluate", {"--device", "--dtype", "--threads", "--seed"}},
    {"serve", {"--device", "--dtype", "--threads"}},
    {"mcp", {"--device", "--dtype", "--threads"}},
    {"gather", {}},
    {"export", {"--threads"}},
    {"quantize", {"--dtype", "--threads"}},
    {"inspect", {}},
    {"pull", {}}};

void add_runtime_option(CLI::App& command, const std::string& name, vlm::RuntimeOptions& runtime) {
  if (name == "--device") {
    command.add_option(name, runtime.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  } else if (name == "--dtype") {
    command
        .add_option(name, runtime.dtype,
                    "auto, float32, bfloat16, int8 or int4; auto is bfloat16 for models stored so, "
                    "where the device is quick with it, else float32; int8 rounds to 8 bits and "
                    "int4 to 4, to run models on a CPU")
        ->capture_default_str();
  } else if (name == "--threads") {
    command.add_option(name, runtime.threads, "CPU threads; 0: as many as the machine has")
        ->check(vlm::between(0, 1024))
        ->capture_default_str();
  } else {
    command.add_option(name, runtime.seed,
                       "Seed of everything random (default: the config's, or 0)");
  }
}

void add_shared_options(CLI::App& command, SharedOptions& shared) {
  for (const std::string& name : kUsed.at(command.get_name())) {
    add_runtime_option(command, name, shared.runtime);
  }
  CLI::Option* level =
      command.add_option("--log-level", shared.log_level, "debug, info, warning, error or off")
          ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
          ->capture_default_str();
  command
      .add_flag("-q,--quiet", shared.is_quiet,
                "Nothing but results, warnings and errors: the same as --log-level warning")
      ->excludes(level);
}

// The trainer's evaluation asks inference here, so that neither includes the other.
std::vector<std::variant<std::string, vlm::Error>> answer(
    const vlm::train::AnswerRequest& request) {
  return vlm::infer::answer_samples(request.model, request.processor, request.prompts,
                                    {.folder = request.folder,
                                     .max_new_tokens = request.max_new_tokens,
                                     .video = request.video,
                                     .should_stop = vlm::stop_requested});
}

// "--system=" becomes "--system" and an empty value: CLI11 would take the next argument for it.
std::vector<std::string> split_empty_values(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> arguments;
  const CLI::App* command = nullptr;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (!command && kUsed.count(argument) > 0) command = app.get_subcommand(argument);
    const std::string name = argument.substr(0, argument.find('='));
    const bool ends_there = argument.size() == name.size() + 1 && name.starts_with("--");
    const CLI::Option* option =
        command && ends_there ? command->get_option_no_throw(name) : nullptr;
    const bool takes_value = option && option->get_items_expected_min() > 0;
    arguments.push_back(takes_value ? name : argument);
    if (takes_value) arguments.emplace_back();
  }
  return arguments;
}

std::vector<std::string> names_of_options(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string near_name(const std::string& name, const std::vector<std::string>& names) {
  const auto nearest = vlm::nearest_name(name, names);
  return nearest ? vlm::concat(" (did you mean '", *nearest, "'?)") : "";
}

// What the parser passed over, or nothing: a command, an option or an argument too much.
std::string name_unknown(const CLI::App& app, const std::vector<std::string>& arguments) {
  const bool has_command = !app.get_subcommands().empty();
  const CLI::App& command = has_command ? *app.get_subcommands()[0] : app;
  const std::string where = has_command ? "vlm " + command.get_name() + ": " : "";
  const std::vector<std::string> extras = command.remaining();
  if (!has_command && !arguments.empty() && !arguments[0].starts_with("-")) {
    std::vector<std::string> names;
    for (const auto& [name, used] : kUsed) names.push_back(name);
    return vlm::concat("unknown command '", arguments[0], "'", near_name(arguments[0], names));
  }
  for (const std::string& extra : extras) {
    if (extra.size() < 2 || extra[0] != '-') continue;
    const std::string name = extra.substr(0, extra.find('='));
    return vlm::concat(where, "unknown option '", name, "'",
                       near_name(name, names_of_options(command)));
  }
  return extras.empty() ? "" : vlm::concat(where, "unexpected argument '", extras[0], "'");
}

int tell_usage(const CLI::App& app, const std::vector<std::string>& arguments,
               const std::string& message) {
  const std::string unknown = name_unknown(app, arguments);
  const auto commands = app.get_subcommands();
  const std::string name = commands.empty() ? "" : commands[0]->get_name() + " ";
  vlm::log_error(vlm::concat(unknown.empty() ? message : unknown, "\nvlm ", name,
                             "--help lists what there is"));
  return 2;
}

// Numbers: CLI11 takes an empty value for one that wasn't given.
std::string find_empty_number(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    const std::string type = option->get_type_name();
    const bool is_text = type.starts_with("TEXT") || option->get_items_expected_min() == 0;
    for (const std::string& value : option->results()) {
      if (!is_text && value.empty()) return option->get_name() + ": got nothing, wanted a value";
    }
  }
  return "";
}

int run(int argc, char** argv) {
  CLI::App app("Fine-tune and run compact vision-language models", "vlm");
  app.require_subcommand(1);
  app.set_version_flag("--version", VLM_VERSION);

  SharedOptions shared;
  std::map<std::string, std::function<int()>> commands;
  commands.merge(vlm::train::add_commands(app, shared.runtime, answer));
  commands.merge(vlm::infer::add_commands(app, shared.runtime));
  commands.merge(vlm::infer::add_serve_command(app, shared.runtime));
  commands.merge(vlm::infer::add_mcp_command(app, shared.runtime));
  for (CLI::App* command : app.get_subcommands({})) add_shared_options(*command, shared);

  const std::vector<std::string> arguments = split_empty_values(app, argc, argv);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    const bool is_help = error.get_exit_code() == 0;
    return is_help ? app.exit(error) : tell_usage(app, arguments, error.what());
  }
  const CLI::App& command = *app.get_subcommands().front();
  const std::string empty = find_empty_number(command);
  if (!empty.empty()) return tell_usage(app, arguments, empty);

  vlm::set_log_level(shared.is_quiet ? vlm::LogLevel::kWarning
                                     : vlm::parse_log_level(shared.log_level));
  vlm::watch_for_stop();
  return commands.at(command.get_name())();
}

// A file that is opened later must not get the number of a stream that the caller has closed: it
// would be written to as one. Opened the wrong way round, so that using them is an error.
void fill_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

// Data sets of thousands of files hold each of them open; shells allow 1,024 and mean no harm.
void allow_many_files() {
  struct rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int argc, char** argv) {
  fill_closed_streams();
  allow_many_files();
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
    vlm::log_error(vlm::error_text(error));
    // A download that was told to stop ends in an error, too.
    return vlm::stop_requested() ? vlm::stop_exit_code() : 1;
  }
}
