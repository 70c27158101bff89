// An HTTP server whose handler answers by the path, and keeps what it saw.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "infer/server/http/http_server.h"
#include "tests/support/raw_client.h"
#include "vlm/core/concat.h"

namespace vlm::infer {

using std::chrono::milliseconds;

// Answers by the path, and keeps what it saw.
class TestHandler : public HttpHandler {
 public:
  std::optional<WebReply> check(const WebRequest& head) override {
    if (head.path == "/forbidden") return WebReply{.status = 403, .body = "no"};
    return std::nullopt;
  }
  void handle(WebRequest request, std::shared_ptr<Exchange> exchange) override {
    const std::lock_guard lock(mutex);
    requests.push_back(request);
    exchanges.push_back(exchange);
    exchange->on_gone([this] { ++gone; });
    if (request.path == "/wait") return;
    if (request.path == "/stream") return exchange->begin_stream({.status = 200}, ": beat\n\n");
    const std::string text = concat(request.method, " ", request.path, " ", request.query, " ",
                                    request.body.size(), " ", request.body.substr(0, 20));
    exchange->reply({.body = text, .content_type = "text/plain", .headers = {{"x-own", "a\r\nb"}}});
  }
  WebReply refuse(int status, const std::string& code, const std::string& message) override {
    return {.status = status, .body = concat(code, ": ", message), .content_type = "text/plain"};
  }
  void ended(const ExchangeEnd& end) override {
    const std::lock_guard lock(mutex);
    ends.push_back(end);
  }

  std::shared_ptr<Exchange> wait_for_exchange(std::size_t number = 1) {
    for (int i = 0; i < 2000; ++i) {
      {
        const std::lock_guard lock(mutex);
        if (exchanges.size() >= number) return exchanges[number - 1];
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    throw std::runtime_error("no request came");
  }
  std::vector<ExchangeEnd> wait_for_ends(std::size_t count) {
    for (int i = 0; i < 2000; ++i) {
      {
        const std::lock_guard lock(mutex);
        if (ends.size() >= count) return ends;
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    throw std::runtime_error("the request didn't end");
  }

  std::mutex mutex;
  std::vector<WebRequest> requests;
  std::vector<std::shared_ptr<Exchange>> exchanges;
  std::vector<ExchangeEnd> ends;
  std::atomic<int> gone{0};
};

inline HttpOptions quick_options() {
  HttpOptions options;
  options.port = 0;
  options.linger_time = milliseconds(300);
  return options;
}

struct TestServer {
  explicit TestServer(const HttpOptions& options = quick_options()) : server(options, handler) {
    server.start();
  }
  // What comes back for these bytes until the connection ends.
  std::string answer(const std::string& bytes) {
    RawClient client(server.port());
    client.send(bytes);
    return client.read_all(std::chrono::seconds(5));
  }

  TestHandler handler;
  HttpServer server;
};

}  // namespace vlm::infer
