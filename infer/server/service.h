// The routes of the server: which requests there are, who may make them, and what answers.
//
//   HttpServer ─► Service ─► AnswerJob (answers), or a reply at once (models, health, metrics)
#pragma once

#include <memory>
#include <string>

#include "infer/server/access.h"
#include "infer/server/answer_job.h"
#include "infer/server/doors/label_files.h"
#include "infer/server/http/http_server.h"

namespace vlm::infer {

struct ServiceOptions {
  AccessOptions access;
  ApiLimits limits;
  std::int64_t max_queue = 64;
  std::int64_t max_per_key = 0;  // requests of one key at once; 0: any
  std::string adapter_folder;    // below which clients may load adapters; empty: they may not
  LogFormat log_format = LogFormat::kText;
  bool is_label_backend = false;  // answers Label Studio, too
  // The instance's address and token; empty: what it keeps itself isn't fetched.
  std::string label_studio_url, label_studio_token;
  std::string training_folder;  // of a fine-tuning whose curve the page shows; empty: none
};

class Service : public HttpHandler {
 public:
  explicit Service(ServiceOptions options);
  ~Service() override;

  // Before the server starts: whose host names are looked at, and whose counts /metrics tells.
  void attach(const HttpServer& server);
  // The models are there; until then requests are told to come again.
  void serve(std::unique_ptr<ModelShelf> models);
  // For front doors without a socket.
  ServiceParts& parts() { return parts_; }
  // New requests are refused; those that wait fail, those that run have `most_s` seconds.
  void drain(double most_s);
  // Ends all work. Call it when the server has stopped.
  void stop();

  std::optional<WebReply> check(const WebRequest& head) override;
  void handle(WebRequest request, std::shared_ptr<Exchange> exchange) override;
  WebReply refuse(int status, const std::string& code, const std::string& message) override;
  void ended(const ExchangeEnd& end) override;

 private:
  struct Route;
  const Route* find_route(const WebRequest& request) const;
  bool has(const Route& route) const;
  WebReply reply_to(const WebRequest& head, const ApiError& error);
  std::optional<ApiError> find_fault(const WebRequest& head) const;
  WebReply answer_now(const WebRequest& request) const;
  WebReply show_page(const WebRequest& request) const;
  void show_training(const WebRequest& request, std::vector<HttpHeader> headers,
                     std::shared_ptr<Exchange> exchange);
  WebReply health() const;
  WebReply list_models() const;
  WebReply show_model(const std::string& name) const;
  WebReply props() const;
  WebReply metrics() const;

  const ServiceOptions options_;
  Access access_;
  std::vector<std::atomic<std::int64_t>> per_key_;  // requests that are answered, of each key
  ServiceParts parts_;
  std::shared_ptr<const LabelFiles> label_files_;  // null: there are none
  const HttpServer* server_ = nullptr;
};

}  // namespace vlm::infer
