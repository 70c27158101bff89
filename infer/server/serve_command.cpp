#include "infer/server/serve_command.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "infer/commands/model_flags.h"
#include "infer/server/service.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMegabyte = 1'000'000;

struct ServeOptions {
  ModelSource source;
  std::vector<std::string> adapters, runs;  // "name=path"
  HttpOptions http;
  ServiceOptions service;
  EngineOptions engine{.queue_timeout_s = 600};
  std::string key_file, label_token_file;
  FetchOptions fetch;
  double max_body_mb = 32, feature_cache_mb = 256, prefix_cache_mb = 256;
  double shutdown_timeout_s = 30;
  std::string log_format = "text";
};

// "NAME=FOLDER", or a folder by its own name.
AdapterSource parse_run(const std::string& text) {
  const auto at = text.find('=');
  const fs::path path = at == std::string::npos ? text : text.substr(at + 1);
  const std::string own = (path / "").parent_path().filename().string();
  const std::string name = at == std::string::npos ? own : text.substr(0, at);
  if (name.empty() || path.empty()) {
    throw Error({.what = "not a training's folder",
                 .where = "--watch",
                 .got = text,
                 .wanted = "OUTPUT_DIR, or NAME=OUTPUT_DIR"});
  }
  return {.name = name, .path = path.string(), .is_run = true};
}

AdapterSource parse_adapter(const std::string& text) {
  const auto at = text.find('=');
  if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
    throw Error(
        {.what = "not an adapter", .where = "--lora-modules", .got = text, .wanted = "NAME=PATH"});
  }
  return {.name = text.substr(0, at), .path = text.substr(at + 1)};
}

void declare_network(CLI::App& command, ServeOptions& options) {
  command
      .add_option("--host", options.http.host, "Address to listen on, or unix:/path of a socket")
      ->check(not_empty())
      ->capture_default_str();
  command.add_option("--port", options.http.port, "Port; 0: any that is free")
      ->check(between(0, 65535))
      ->capture_default_str();
  command
      .add_option("--api-key-file", options.key_file,
                  "File with keys, one a line, of which clients must send one; the variable "
                  "VLM_API_KEY holds one, too (default: nobody is asked)")
      ->check(not_empty());
  command
      .add_option("--allowed-host", options.service.access.allowed_hosts,
                  "Name that clients may use for this machine, beside localhost; may be repeated")
      ->allow_extra_args(false)
      ->check(not_empty());
  command
      .add_option("--cors-origin", options.service.access.cors_origins,
                  "Web page that may ask, as https://name:port; may be repeated (default: none)")
      ->allow_extra_args(false)
      ->check(not_empty());
  command.add_option("--max-connections", options.http.max_connections, "Connections at once")
      ->check(between(1, 1'000'000))
      ->capture_default_str();
  command
      .add_option("--max-connections-per-address", options.http.max_connections_per_peer,
                  "Connections of one address, but this machine's")
      ->check(between(1, 1'000'000))
      ->capture_default_str();
  command.add_option("--max-body-mb", options.max_body_mb, "Largest request in MB")
      ->check(between(0.001, 4000))
      ->capture_default_str();
}

void declare_models(CLI::App& command, ServeOptions& options) {
  declare_model(command, options.source.choice);
  command.get_option("--model")->required(false);
  command
      .add_option("--served-model-name", options.source.names,
                  "Name that requests use for the model; may be repeated (default: the model's)")
      ->allow_extra_args(false)
      ->check(not_empty());
  command
      .add_option("--lora-modules", options.adapters,
                  "PEFT adapter that requests can name as their model, as NAME=PATH; may be "
                  "repeated")
      ->check(not_empty());
  command
      .add_option("--watch", options.runs,
                  "Output folder of a fine-tuning, as OUTPUT_DIR or NAME=OUTPUT_DIR: its newest "
                  "checkpoint answers under the name, while it trains; may be repeated")
      ->allow_extra_args(false)
      ->check(not_empty());
  command
      .add_option("--max-loras", options.source.max_adapters,
                  "Adapters in memory; the one used longest ago leaves for another")
      ->check(between(1, 1000))
      ->capture_default_str();
  command
      .add_option("--allow-runtime-lora", options.service.adapter_folder,
                  "Folder below which clients with a key may load adapters while the server runs "
                  "(default: they may not)")
      ->check(CLI::ExistingDirectory);
  command
      .add_option("--feature-cache", options.source.features.folder,
                  "Folder that keeps features of pictures on disk; auto or off")
      ->capture_default_str();
  command
      .add_option("--feature-cache-mb", options.feature_cache_mb,
                  "Memory for features of pictures that were asked about")
      ->check(at_least(0))
      ->capture_default_str();
  command
      .add_option("--prefix-cache-mb", options.prefix_cache_mb,
                  "Memory for what was computed of recent conversations")
      ->check(at_least(0))
      ->capture_default_str();
}

void declare_limits(CLI::App& command, ServeOptions& options) {
  ApiLimits& limits = options.service.limits;
  const auto count = [&](const char* name, std::int64_t& value, const char* help, double least,
                         double most) {
    command.add_option(name, value, help)->check(between(least, most))->capture_default_str();
  };
  count("--max-num-seqs", options.engine.max_running, "Requests answered at once", 1, 256);
  count("--max-queue", options.engine.max_waiting, "Requests that may wait; more get 429", 1,
        100'000);
  count("--max-per-key", options.service.max_per_key, "Requests of one key at once; 0: any", 0,
        100'000);
  count("--max-n", limits.max_n, "Answers, or beams, a request", 1, 128);
  count("--max-tokens-limit", limits.max_tokens, "Tokens of an answer", 1, 1 << 24);
  count("--max-images", limits.max_pictures, "Pictures a request", 0, 10'000);
  count("--max-videos", limits.max_clips, "Clips a request", 0, 1000);
  count("--max-pixels", limits.max_pixels, "Pixels of a picture", 1, 1e10);
  count("--max-frames", limits.max_frames, "Frames shown of a clip", 1, 100'000);
  command
      .add_option("--allowed-local-media-path", limits.media_folder,
                  "Folder below which requests may name files as file:// (default: none)")
      ->check(CLI::ExistingDirectory);
  command
      .add_option("--allowed-media-domains", options.fetch.hosts,
                  "Host from which pictures and clips may be fetched by https, or http://HOST; may "
                  "be repeated (default: none)")
      ->check(not_empty());
  command.add_flag("--strict-fields", limits.refuses_unknown,
                   "Refuse requests with fields that nobody knows; else they are named in the "
                   "header x-vlm-ignored");
  command
      .add_option("--queue-timeout", options.engine.queue_timeout_s,
                  "Seconds that a request may wait; 0: any")
      ->check(at_least(0))
      ->capture_default_str();
  command
      .add_option("--shutdown-timeout", options.shutdown_timeout_s,
                  "Seconds that running requests have to finish when the server is told to end")
      ->check(at_least(0))
      ->capture_default_str();
  command
      .add_option("--log-format", options.log_format, "A request's line in the log: text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

void declare_doors(CLI::App& command, ServeOptions& options) {
  CLI::Option* backend =
      command.add_flag("--label-studio", options.service.is_label_backend,
                       "Answer Label Studio, too, as its machine learning backend");
  CLI::Option* instance =
      command
          .add_option("--label-studio-url", options.service.label_studio_url,
                      "Address of the Label Studio instance, for pictures that it keeps itself")
          ->needs(backend)
          ->check(not_empty());
  command
      .add_option("--label-studio-token-file", options.label_token_file,
                  "File with a user's access token of the instance")
      ->needs(instance)
      ->check(not_empty());
  command
      .add_option("--training", options.service.training_folder,
                  "Output folder of a fine-tuning whose curve the page shows")
      ->check(CLI::ExistingDirectory);
}

std::vector<std::string> find_keys(const std::string& file) {
  std::vector<std::string> keys;
  if (!file.empty()) keys = load_api_keys(file);
  const char* variable = std::getenv("VLM_API_KEY");
  if (variable != nullptr && *variable != '\0') keys.emplace_back(variable);
  return keys;
}

void complete(ServeOptions& options) {
  if (options.source.choice.model.empty()) options.source.choice.model = find_default_model();
  for (const std::string& text : options.adapters) {
    options.source.adapters.push_back(parse_adapter(text));
  }
  for (const std::string& text : options.runs) options.source.adapters.push_back(parse_run(text));
  options.service.access.keys = find_keys(options.key_file);
  if (!options.label_token_file.empty()) {
    options.service.label_studio_token = load_api_keys(options.label_token_file).front();
  }
  if (!options.service.adapter_folder.empty() && options.service.access.keys.empty()) {
    throw Error({.what = "clients without keys may not load adapters",
                 .where = "--allow-runtime-lora",
                 .hint = "--api-key-file or VLM_API_KEY sets a key"});
  }
  if (options.service.max_per_key > 0 && options.service.access.keys.empty()) {
    throw Error({.what = "there are no keys to count requests of",
                 .where = "--max-per-key",
                 .hint = "--api-key-file or VLM_API_KEY sets one"});
  }
  options.service.max_queue = options.engine.max_waiting;
  options.service.log_format = options.log_format == "json" ? LogFormat::kJson : LogFormat::kText;
  const auto bytes = [](double megabytes) {
    return static_cast<std::int64_t>(megabytes * static_cast<double>(kMegabyte));
  };
  options.http.max_body_bytes = bytes(options.max_body_mb);
  options.http.max_bodies_bytes =
      std::max(options.http.max_bodies_bytes, 2 * options.http.max_body_bytes);
  ApiLimits& limits = options.service.limits;
  limits.max_clip_bytes = options.http.max_body_bytes;
  limits.max_fetched_bytes = options.http.max_body_bytes;
  if (!options.fetch.hosts.empty()) {
    limits.fetcher = std::make_shared<const MediaFetcher>(options.fetch);
  }
  options.engine.kept_media_bytes = bytes(options.feature_cache_mb);
  options.engine.kept_prefix_bytes = bytes(options.prefix_cache_mb);
}

int run_serve(ServeOptions options, const RuntimeOptions& runtime) {
  complete(options);
  Service service(options.service);
  HttpServer server(options.http, service);  // a port in use is told before the model is loaded
  service.attach(server);
  if (!server.is_loopback() && options.service.access.keys.empty()) {
    log_warning(concat("anybody who reaches ", server.address(),
                       " can ask: no key is set (--api-key-file, VLM_API_KEY)"));
  }
  server.start();
  service.serve(std::make_unique<ModelShelf>(options.source, runtime, options.engine,
                                             options.service.limits));
  log_info(concat("serving ", options.source.choice.model, " at ", server.address(), "/v1; ",
                  server.port() == 0 ? "" : concat("the page is ", server.address(), "/, "),
                  "Ctrl-C ends it"));
  while (!stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log_info("shutting down: running requests finish");
  server.stop_accepting();
  service.drain(options.shutdown_timeout_s);
  server.wait_until_idle(std::chrono::seconds(5));
  server.stop();
  service.stop();
  return 0;
}

}  // namespace

std::string find_default_model() {
  std::error_code code;
  const fs::path program = fs::read_symlink("/proc/self/exe", code);
  for (const fs::path& folder : {program.parent_path() / "../share/vlm/models/easy-vqa-emoji",
                                 fs::path(VLM_DEFAULT_MODEL)}) {
    if (fs::exists(folder / "config.json", code)) return fs::weakly_canonical(folder).string();
  }
  throw Error({.what = "no model to serve",
               .where = "--model",
               .hint = "name a folder or an org/name of the hub"});
}

std::map<std::string, std::function<int()>> add_serve_command(CLI::App& app,
                                                              const RuntimeOptions& runtime) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command =
      app.add_subcommand("serve", "Serve a model over HTTP, with OpenAI's API for chats");
  declare_models(*command, *options);
  declare_network(*command, *options);
  declare_limits(*command, *options);
  declare_doors(*command, *options);
  return {{"serve", [options, &runtime] { return run_serve(*options, runtime); }}};
}

}  // namespace vlm::infer
