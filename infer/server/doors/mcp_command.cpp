#include "infer/server/doors/mcp_command.h"

#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <utility>

#include "infer/commands/model_flags.h"
#include "infer/server/doors/inner_ask.h"
#include "infer/server/doors/mcp_session.h"
#include "infer/server/serve_command.h"
#include "infer/server/service.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostLineBytes = 64 << 20;
constexpr int kLookMs = 50;  // between looks at whether to stop

struct McpOptions {
  ModelSource source;
  ServiceOptions service;
  EngineOptions engine{.kept_media_bytes = 256'000'000, .kept_prefix_bytes = 256'000'000};
};

// Standard input as lines, until its end or a signal.
class LineInput {
 public:
  // False: there is nothing more. A line that is too long is passed over: `is_long`.
  bool next(std::string& line, bool& is_long) {
    for (;;) {
      const auto end = buffer_.find('\n', looked_at_);
      if (end != std::string::npos) {
        line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        looked_at_ = 0;
        is_long = std::exchange(is_skipping_, false);
        return true;
      }
      is_skipping_ = is_skipping_ || buffer_.size() > kMostLineBytes;
      if (is_skipping_) buffer_.clear();
      looked_at_ = buffer_.size();
      if (!read_more()) return false;
    }
  }

 private:
  bool read_more() {
    while (!stop_requested()) {
      pollfd input = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
      if (::poll(&input, 1, kLookMs) <= 0) continue;
      const ssize_t count = ::read(STDIN_FILENO, bytes_.data(), bytes_.size());
      if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (count <= 0) return false;
      buffer_.append(bytes_.data(), static_cast<std::size_t>(count));
      return true;
    }
    return false;
  }

  std::array<char, 64 << 10> bytes_;
  std::string buffer_;
  std::size_t looked_at_ = 0;
  bool is_skipping_ = false;
};

// Nobody reads any more: as if the input had ended.
void write_line(const std::string& line, std::atomic<bool>& is_closed) {
  try {
    print_result(line);
  } catch (const ResultsClosed&) {
    is_closed = true;
  } catch (const Error& error) {
    log_error(error.what());
    is_closed = true;
  }
}

int run_mcp(const McpOptions& options, const RuntimeOptions& runtime) {
  Service service(options.service);
  service.serve(std::make_unique<ModelShelf>(options.source, runtime, options.engine,
                                             options.service.limits));
  std::atomic<bool> is_closed{false};
  std::int64_t calls = 0;
  McpSession session(
      [&](const OrderedJson& body, McpSession::Done done) -> McpSession::Cancel {
        const auto ask = InnerAsk::start(
            service.parts(), {.body = body, .id = concat("call-", ++calls)}, std::move(done));
        return [ask] { ask->cancel(); };
      },
      [&](const std::string& line) { write_line(line, is_closed); });
  log_info(concat("answering MCP on standard input and output with ", options.source.choice.model));
  LineInput input;
  std::string line;
  bool is_long = false;
  while (!is_closed && input.next(line, is_long)) {
    is_long ? session.refuse_long_line(kMostLineBytes) : session.take(line);
  }
  // What was asked before the end of the input is answered still.
  while (!is_closed && !stop_requested() && session.running() > 0) ::poll(nullptr, 0, kLookMs);
  session.cancel_all();
  service.stop();
  return 0;
}

}  // namespace

std::map<std::string, std::function<int()>> add_mcp_command(CLI::App& app,
                                                            const RuntimeOptions& runtime) {
  auto options = std::make_shared<McpOptions>();
  CLI::App* command = app.add_subcommand(
      "mcp",
      "Offer a model to agents as tools, over the Model Context Protocol on stdin and stdout");
  declare_model(*command, options->source.choice);
  command->get_option("--model")->required(false);
  command
      ->add_option("--feature-cache", options->source.features.folder,
                   "Folder that keeps features of pictures on disk; auto or off")
      ->capture_default_str();
  ApiLimits& limits = options->service.limits;
  command
      ->add_option("--allowed-local-media-path", limits.media_folder,
                   "Folder below which agents may name pictures and clips (default: none; they "
                   "send them as base64)")
      ->check(CLI::ExistingDirectory);
  command->add_option("--max-tokens-limit", limits.max_tokens, "Tokens of an answer")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->capture_default_str();
  return {{"mcp", [options, &runtime] {
             std::string& model = options->source.choice.model;
             if (model.empty()) model = find_default_model();
             return run_mcp(*options, runtime);
           }}};
}

}  // namespace vlm::infer
