#include "infer/server/service.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "infer/server/adapter_requests.h"
#include "infer/server/doors/label_job.h"
#include "infer/server/http/percent.h"
#include "infer/server/page/page_reply.h"
#include "infer/server/page/training_log.h"
#include "infer/server/service_gauges.h"
#include "vlm/core/ascii.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kKnownMediaBytes = 64 << 20;
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

OrderedJson model_json(const ServedModel& base, const ListedModel& model) {
  OrderedJson inputs = {"text"};
  if (base.processor().takes_media()) inputs = {"text", "image", "video"};
  return {{"id", model.name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "vlm"},
          {"root", model.root},
          {"parent", model.parent.empty() ? OrderedJson() : OrderedJson(model.parent)},
          {"max_model_len", base.context()},
          {"architecture", {{"input_modalities", inputs}, {"output_modalities", {"text"}}}}};
}

ApiError key_full(std::int64_t most) {
  ApiError error({.status = 429, .code = "queue_full"},
                 {.what = "this key has as many requests as it may have at once",
                  .wanted = concat("at most ", most)});
  error.retry_after_s = 1;
  return error;
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
    kLoad,
    kUnload,
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
      Route{"POST", "/load_lora_adapter", Kind::kLoad},
      Route{"POST", "/unload_lora_adapter", Kind::kUnload},
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

Service::Service(ServiceOptions options)
    : options_(std::move(options)),
      access_(options_.access),
      per_key_(std::max<std::size_t>(options_.access.keys.size(), 1)) {
  parts_.limits = options_.limits;
  parts_.limits.known_media = std::make_shared<KnownMedia>(kKnownMediaBytes);
  parts_.max_queue = options_.max_queue;
  if (options_.label_studio_url.empty()) return;
  label_files_ =
      std::make_shared<const LabelFiles>(options_.label_studio_url, options_.label_studio_token);
}

Service::~Service() {
  stop();
}

void Service::attach(const HttpServer& server) {
  server_ = &server;
  access_.set_checks_host(server.port() != 0 && server.is_loopback());
}

void Service::serve(std::unique_ptr<ModelShelf> models) {
  parts_.models = std::move(models);
  parts_.is_ready = true;
}

void Service::drain(double most_s) {
  parts_.is_stopping = true;
  if (parts_.models) parts_.models->drain(most_s);
  parts_.fetching.finish();
  parts_.media.finish();
  parts_.writer.finish();
}

void Service::stop() {
  parts_.fetching.stop();
  parts_.media.stop();
  if (parts_.models) parts_.models->drain(0);
  parts_.writer.finish();  // the engines' last events
  parts_.writer.stop();
  parts_.models.reset();
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
  const bool is_change = route->kind == Route::Kind::kLoad || route->kind == Route::Kind::kUnload;
  if (is_change && (options_.adapter_folder.empty() || !access_.has_keys())) {
    return ApiError({.status = 404, .code = "not_found"},
                    {.what = "adapters can't be loaded while the server runs",
                     .hint = "--allow-runtime-lora and a key switch it on"});
  }
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
  AnswerJob::Asker asker{.key = access_.key_of(request).value_or(0)};
  if (route.kind == Route::Kind::kJob || is_prediction) {
    const std::int64_t waiting = parts_.preparing + parts_.models->stats().engines.waiting;
    if (waiting >= parts_.max_queue) {
      return exchange->reply(reply_to(request, queue_full(parts_.retry_after_s())));
    }
    auto& count = per_key_[asker.key];
    if (options_.max_per_key > 0 && count >= options_.max_per_key) {
      return exchange->reply(reply_to(request, key_full(options_.max_per_key)));
    }
    asker.place = hold_one(count);
  }
  if (route.kind == Route::Kind::kJob) {
    const auto job = std::make_shared<AnswerJob>(parts_, route.job, exchange, std::move(asker));
    return job->start(std::move(request), std::move(headers));
  }
  if (is_prediction || route.kind == Route::Kind::kSetUpLabels) {
    const auto kind = is_prediction ? LabelJob::Kind::kPredict : LabelJob::Kind::kSetup;
    const auto job =
        std::make_shared<LabelJob>(parts_, kind, label_files_, exchange, std::move(asker));
    return job->start(std::move(request), std::move(headers));
  }
  if (route.kind == Route::Kind::kLoad || route.kind == Route::Kind::kUnload) {
    const bool is_load = route.kind == Route::Kind::kLoad;
    return change_adapters(parts_, is_load ? AdapterChange::kLoad : AdapterChange::kUnload,
                           options_.adapter_folder, std::move(request), exchange,
                           std::move(headers));
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
  for (const ListedModel& model : parts_.models->list()) {
    list.push_back(model_json(parts_.models->base(), model));
  }
  return json_reply({{"object", "list"}, {"data", std::move(list)}});
}

WebReply Service::show_model(const std::string& name) const {
  const auto decoded = decode_percents(name);
  try {
    return json_reply(
        model_json(parts_.models->base(), parts_.models->find(decoded.value_or(name))));
  } catch (const ApiError& error) {
    return to_reply(error);
  }
}

// Fields that clients of llama.cpp's server read.
WebReply Service::props() const {
  const ServedModel& model = parts_.models->base();
  const bool sees = model.processor().takes_media();
  return json_reply({{"default_generation_settings", {{"n_ctx", model.context()}}},
                     {"n_ctx", model.context()},
                     {"model_alias", model.id()},
                     {"modalities", {{"vision", sees}, {"video", sees}, {"audio", false}}},
                     {"vlm", {{"training", !options_.training_folder.empty()}}}});  // the page's
}

WebReply Service::metrics() const {
  return {.body = parts_.metrics.text(service_gauges(parts_, server_)),
          .content_type = "text/plain; version=0.0.4"};
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
