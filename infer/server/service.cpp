#include "infer/server/service.h"

#include <algorithm>
#include <array>
#include <future>
#include <nlohmann/json.hpp>

#include "infer/server/doors/label_job.h"
#include "infer/server/http/percent.h"
#include "infer/server/page/page_reply.h"
#include "infer/server/page/training_log.h"
#include "vlm/core/ascii.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

constexpr std::string_view kModels = "/models/";

// Without "/v1" and a slash at the end: both are often forgotten, or there once too often.
std::string short_path(const std::string& path) {
  std::string rest = path.starts_with("/v1/") ? path.substr(3) : path;
  while (rest.size() > 1 && rest.ends_with('/')) rest.pop_back();
  return rest;
}

WebReply json_reply(const OrderedJson& body) {
  return {.body = dump_text(body)};
}

OrderedJson model_json(const ServedModel& model, const std::string& name) {
  OrderedJson inputs = {"text"};
  if (model.processor().takes_media()) inputs = {"text", "image", "video"};
  return {{"id", name},
          {"object", "model"},
          {"created", model.created()},
          {"owned_by", "vlm"},
          {"root", model.id()},
          {"parent", model.parent().empty() ? OrderedJson() : OrderedJson(model.parent())},
          {"max_model_len", model.context()},
          {"architecture", {{"input_modalities", inputs}, {"output_modalities", {"text"}}}}};
}

const char* reason_of_refusal(int status) {
  switch (status) {
    case 401:
    case 403:
      return "auth";
    case 429:
      return "queue_full";
    default:
      return "body";
  }
}

}  // namespace

struct Service::Route {
  enum class Kind {
    kPage,
    kHealth,
    kModels,
    kModel,
    kProps,
    kMetrics,
    kTraining,
    kJob,
    kSetUpLabels,
    kPredictLabels,
    kLabelEvent
  };
  const char* method;
  const char* path;  // as short_path has it
  Kind kind;
  AnswerJob::Kind job = AnswerJob::Kind::kChat;
  bool is_open = false;  // without a key
};

// Some are there only where they were asked for.
bool Service::has(const Route& route) const {
  switch (route.kind) {
    case Route::Kind::kTraining:
      return !options_.training_folder.empty();
    case Route::Kind::kSetUpLabels:
    case Route::Kind::kPredictLabels:
    case Route::Kind::kLabelEvent:
      return options_.is_label_backend;
    default:
      return true;
  }
}

const Service::Route* Service::find_route(const WebRequest& request) const {
  using Kind = Route::Kind;
  static constexpr std::array kRoutes = {
      Route{"GET", "/", Kind::kPage, AnswerJob::Kind::kChat, true},
      Route{"GET", "/health", Kind::kHealth, AnswerJob::Kind::kChat, true},
      Route{"GET", "/models", Kind::kModels},
      Route{"GET", "/models/", Kind::kModel},
      Route{"GET", "/props", Kind::kProps},
      Route{"GET", "/metrics", Kind::kMetrics},
      Route{"GET", "/training", Kind::kTraining},
      Route{"POST", "/setup", Kind::kSetUpLabels},
      Route{"POST", "/predict", Kind::kPredictLabels},
      Route{"POST", "/webhook", Kind::kLabelEvent},
      Route{"POST", "/chat/completions", Kind::kJob, AnswerJob::Kind::kChat},
      Route{"POST", "/completions", Kind::kJob, AnswerJob::Kind::kCompletion},
      Route{"POST", "/responses", Kind::kJob, AnswerJob::Kind::kResponse},
      Route{"POST", "/chat/completions/input_tokens", Kind::kJob, AnswerJob::Kind::kCountTokens}};
  const std::string path = short_path(request.path);
  for (const Route& route : kRoutes) {
    const bool is_model = route.kind == Kind::kModel && path.starts_with(kModels);
    const bool is_page = route.kind == Kind::kPage && is_page_path(path);
    if ((path == route.path || is_model || is_page) && has(route)) return &route;
  }
  return nullptr;
}

Service::Service(ServiceOptions options) : options_(std::move(options)), access_(options_.access) {
  parts_.limits = options_.limits;
  parts_.max_queue = options_.max_queue;
}

Service::~Service() {
  stop();
}

void Service::attach(const HttpServer& server) {
  server_ = &server;
  access_.set_checks_host(server.port() != 0 && server.is_loopback());
}

void Service::serve(ServedModels models) {
  parts_.models = std::move(models);
  parts_.is_ready = true;
}

void Service::drain(double most_s) {
  parts_.is_stopping = true;
  std::vector<std::future<void>> ends;
  for (const auto& model : parts_.models) {
    ends.push_back(std::async(std::launch::async, [&] { model->engine().drain(most_s); }));
  }
  for (auto& end : ends) end.get();
  parts_.media.finish();
  parts_.writer.finish();
}

void Service::stop() {
  parts_.media.stop();
  for (const auto& model : parts_.models) model->engine().drain(0);
  parts_.writer.finish();  // the engines' last events
  parts_.writer.stop();
  parts_.models.clear();
}

std::optional<ApiError> Service::find_fault(const WebRequest& head) const {
  if (auto error = access_.check_origin(head)) return error;
  const Route* route = find_route(head);
  if (!route || !route->is_open) {
    if (auto error = access_.check_key(head)) return error;
  }
  if (!route) {
    const std::string path = short_path(head.path);
    const bool is_other_kind = path.starts_with("/embeddings") || path.starts_with("/audio/");
    return ApiError({.status = 404, .code = "not_found"},
                    {.what = is_other_kind ? "this model makes text alone" : "no such path",
                     .got = shown(head.path),
                     .hint = "there are /v1/chat/completions and /v1/models"});
  }
  const std::string method = head.method == "HEAD" ? "GET" : head.method;
  if (method != route->method) {
    return ApiError({.status = 405, .code = "method_not_allowed"},
                    {.what = "a method that this path doesn't have",
                     .got = shown(head.method),
                     .wanted = route->method});
  }
  if (route->is_open) return std::nullopt;
  if (parts_.is_stopping) return shutting_down();
  if (!parts_.is_ready) {
    ApiError error({.status = 503, .code = "model_loading"}, {.what = "the model is being loaded"});
    error.retry_after_s = 2;
    return error;
  }
  const std::string type = ascii_lower(std::string(head.header("content-type")));
  const bool is_json = trimmed(type.substr(0, type.find(';'))) == "application/json";
  if (method == "POST" && !is_json) {
    return ApiError({.status = 415, .code = "unsupported_media_type"},
                    {.what = "a body that isn't JSON",
                     .got = concat("'", shown(type), "'"),
                     .wanted = "Content-Type: application/json"});
  }
  return std::nullopt;
}

WebReply Service::reply_to(const WebRequest& head, const ApiError& error) {
  WebReply reply = to_reply(error);
  for (HttpHeader& header : access_.cors_headers(head)) reply.headers.push_back(std::move(header));
  if (error.status() == 405) reply.headers.push_back({"Allow", find_route(head)->method});
  if (error.status() < 500 && error.status() != 404) {
    parts_.metrics.add("requests_rejected_total", {{"reason", reason_of_refusal(error.status())}});
  }
  return reply;
}

std::optional<WebReply> Service::check(const WebRequest& head) {
  const auto fault = access_.check_origin(head);
  if (!fault) {
    if (auto reply = access_.preflight(head)) return reply;
  }
  if (const auto error = find_fault(head)) return reply_to(head, *error);
  return std::nullopt;
}

void Service::handle(WebRequest request, std::shared_ptr<Exchange> exchange) {
  const Route& route = *find_route(request);
  std::vector<HttpHeader> headers = access_.cors_headers(request);
  const bool is_prediction = route.kind == Route::Kind::kPredictLabels;
  if (route.kind == Route::Kind::kTraining) {
    return show_training(request, std::move(headers), std::move(exchange));
  }
  if (route.kind == Route::Kind::kJob || is_prediction) {
    const std::int64_t waiting = parts_.preparing + parts_.models.front()->engine().stats().waiting;
    if (waiting >= parts_.max_queue) {
      return exchange->reply(
          reply_to(request, queue_full(parts_.retry_after_s(*parts_.models.front()))));
    }
  }
  if (route.kind == Route::Kind::kJob) {
    const auto job = std::make_shared<AnswerJob>(parts_, route.job, exchange);
    return job->start(std::move(request), std::move(headers));
  }
  if (is_prediction || route.kind == Route::Kind::kSetUpLabels) {
    const auto kind = is_prediction ? LabelJob::Kind::kPredict : LabelJob::Kind::kSetup;
    const auto job = std::make_shared<LabelJob>(parts_, kind, options_.label_studio_url, exchange);
    return job->start(std::move(request), std::move(headers));
  }
  WebReply reply = answer_now(request);
  reply.headers.insert(reply.headers.end(), headers.begin(), headers.end());
  exchange->reply(std::move(reply));
}

WebReply Service::answer_now(const WebRequest& request) const {
  switch (find_route(request)->kind) {
    case Route::Kind::kPage:
      return show_page(request);
    case Route::Kind::kHealth:
      return health();
    case Route::Kind::kModels:
      return list_models();
    case Route::Kind::kModel:
      return show_model(short_path(request.path).substr(kModels.size()));
    case Route::Kind::kProps:
      return props();
    case Route::Kind::kLabelEvent:  // told of what changed in the project; nothing here does
      return {.status = 201, .body = "{}"};
    default:
      return metrics();
  }
}

// Label Studio, which is no browser, asks for the health of its backend at "/".
WebReply Service::show_page(const WebRequest& request) const {
  const std::string path = short_path(request.path);
  const bool is_browser = request.header("accept").find("text/html") != std::string_view::npos;
  if (options_.is_label_backend && path == "/" && !is_browser) return health();
  return page_reply(request, path);
}

// Reads a file, so not on the network thread.
void Service::show_training(const WebRequest& request, std::vector<HttpHeader> headers,
                            std::shared_ptr<Exchange> exchange) {
  parts_.media.post([folder = options_.training_folder, query = request.query,
                     headers = std::move(headers), exchange = std::move(exchange)] {
    WebReply reply;
    try {
      reply = json_reply(read_training(folder, parse_training_place(query)));
    } catch (const Error& error) {
      reply = to_reply(ApiError({.status = 500, .code = "internal"}, {.what = error.parts().what}));
    }
    reply.headers.insert(reply.headers.end(), headers.begin(), headers.end());
    exchange->reply(std::move(reply));
  });
}

WebReply Service::health() const {
  const bool is_ready = parts_.is_ready && !parts_.is_stopping;
  OrderedJson body = {{"status", is_ready ? "ok" : "unavailable"}};
  if (is_ready && options_.is_label_backend) body = {{"status", "UP"}, {"model_class", "vlm"}};
  WebReply reply = json_reply(body);
  if (!is_ready) reply.status = 503;
  return reply;
}

WebReply Service::list_models() const {
  OrderedJson list = OrderedJson::array();
  for (const auto& model : parts_.models) {
    list.push_back(model_json(*model, model->id()));
    for (const std::string& alias : model->aliases()) list.push_back(model_json(*model, alias));
  }
  return json_reply({{"object", "list"}, {"data", std::move(list)}});
}

WebReply Service::show_model(const std::string& name) const {
  const auto decoded = decode_percents(name);
  try {
    const ServedModel& model = parts_.find_model(decoded.value_or(name));
    return json_reply(model_json(model, decoded.value_or(name)));
  } catch (const ApiError& error) {
    return to_reply(error);
  }
}

// Fields that clients of llama.cpp's server read.
WebReply Service::props() const {
  const ServedModel& model = *parts_.models.front();
  const bool sees = model.processor().takes_media();
  return json_reply({{"default_generation_settings", {{"n_ctx", model.context()}}},
                     {"n_ctx", model.context()},
                     {"model_alias", model.id()},
                     {"modalities", {{"vision", sees}, {"video", sees}, {"audio", false}}},
                     {"vlm", {{"training", !options_.training_folder.empty()}}}});  // the page's
}

WebReply Service::metrics() const {
  std::vector<Metrics::Gauge> gauges = process_gauges();
  gauges.push_back({.name = "vlm_build_info",
                    .help = "The program.",
                    .labels = {{"version", VLM_VERSION}},
                    .value = 1});
  const auto add = [&](const char* name, const char* help, double value, bool is_counter = false) {
    gauges.push_back(
        {.name = concat("vlm_", name), .help = help, .value = value, .is_counter = is_counter});
  };
  EngineStats all;
  double grammar_bytes = 0;
  for (const auto& model : parts_.models) {
    const EngineStats stats = model->engine().stats();
    all.running += stats.running;
    all.waiting += stats.waiting;
    all.cache_bytes += stats.cache_bytes;
    all.kept_media_bytes += stats.kept_media_bytes;
    all.media_hits += stats.media_hits;
    all.media_misses += stats.media_misses;
    all.prefix_hits += stats.prefix_hits;
    all.prefix_queries += stats.prefix_queries;
    all.encoded_units += stats.encoded_units;
    grammar_bytes += static_cast<double>(model->grammar_bytes());
    gauges.push_back({.name = "vlm_model_info",
                      .help = "A model that is served.",
                      .labels = {{"model", model->id()}, {"digest", model->fingerprint()}},
                      .value = 1});
  }
  const HttpStats http = server_ ? server_->stats() : HttpStats{};
  add("num_requests_running", "Requests that are being answered.", double(all.running));
  add("num_requests_waiting", "Requests in the queue, and those whose media are being decoded.",
      double(all.waiting + parts_.preparing));
  add("open_connections", "Connections.", double(http.connections));
  add("open_streams", "Answers that are being streamed.", double(http.streams));
  add("request_body_bytes", "Bodies that are held.", double(http.body_bytes));
  add("connections_refused_total", "Connections over the limit.", double(http.refused_connections),
      true);
  add("kv_cache_bytes", "Keys and values of what runs.", double(all.cache_bytes));
  add("feature_cache_bytes", "Features of pictures that are kept.", double(all.kept_media_bytes));
  add("feature_cache_hits_total", "Pictures whose features were kept.", double(all.media_hits),
      true);
  add("feature_cache_misses_total", "Pictures that were encoded.", double(all.media_misses), true);
  add("grammar_cache_bytes", "Compiled schemas, patterns and grammars.", grammar_bytes);
  add("prefix_cache_hits_total", "Prompts whose beginning was kept.", double(all.prefix_hits),
      true);
  add("prefix_cache_queries_total", "Prompts.", double(all.prefix_queries), true);
  add("tiles_encoded_total", "Tiles, or patches, that were encoded.", double(all.encoded_units),
      true);
  const auto adapters = static_cast<double>(parts_.models.size()) - 1;
  add("lora_loaded", "Adapters that are served.", adapters);
  return {.body = parts_.metrics.text(gauges), .content_type = "text/plain; version=0.0.4"};
}

WebReply Service::refuse(int status, const std::string& code, const std::string& message) {
  ApiError error({.status = status, .code = code}, {.what = message});
  if (status == 429) error.retry_after_s = 1;
  parts_.metrics.add("requests_rejected_total", {{"reason", reason_of_refusal(status)}});
  return to_reply(error);
}

void Service::ended(const ExchangeEnd& end) {
  WebRequest request{.path = end.path};
  const Route* route = find_route(request);
  const std::string path = route ? route->path : "other";
  parts_.writer.post([this, end, path] {
    count_request(end, path, parts_.metrics);
    log_info(log_line(end, options_.log_format));
  });
}

}  // namespace vlm::infer
