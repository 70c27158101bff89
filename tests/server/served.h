// A server in this process, with a small model and a client of its own.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "data/media/media_ref.h"
#include "infer/server/service.h"
#include "tests/support/catch.h"
#include "tests/support/raw_client.h"
#include "tests/support/run_program.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm::infer {

inline const std::filesystem::path kShapes =
    std::filesystem::path(VLM_SOURCE_DIR) / "examples/pictures";
inline const std::string kShapeModel = std::string(VLM_SOURCE_DIR) + "/models/easy-vqa-emoji";

struct ServedOptions {
  ModelSource source{.choice = {.model = kShapeModel}, .features = {.folder = "off"}};
  ServiceOptions service;
  HttpOptions http;
  EngineOptions engine;
};

class Served {
 public:
  explicit Served(ServedOptions options = {}) : service_(options.service) {
    set_log_level(LogLevel::kWarning);
    options.http.port = 0;
    server_ = std::make_unique<HttpServer>(options.http, service_);
    service_.attach(*server_);
    server_->start();
    service_.serve(std::make_unique<ModelShelf>(options.source,
                                                RuntimeOptions{.device = "cpu", .dtype = "float32"},
                                                options.engine, options.service.limits));
  }
  ~Served() {
    server_->stop();
    service_.stop();
    set_log_level(LogLevel::kInfo);
  }

  int port() const { return server_->port(); }
  HttpServer& server() { return *server_; }
  Service& service() { return service_; }

  // The response to a whole request.
  std::string exchange(const std::string& request) const {
    RawClient client(port());
    client.send(request);
    return client.read_response();
  }
  std::string get(const std::string& path, const std::string& headers = "") const {
    return exchange(get_request(path, headers));
  }
  std::string post(const Json& body, const std::string& path = "/v1/chat/completions",
                   const std::string& headers = "") const {
    return exchange(post_request(path, body.dump(), headers));
  }
  // A good answer's JSON.
  OrderedJson ask(const Json& body, const std::string& path = "/v1/chat/completions") const {
    const std::string response = post(body, path);
    INFO(response);
    REQUIRE(status_of(response) == 200);
    return OrderedJson::parse(body_of(response));
  }
  // "400 code param" of a refusal, whose four members are all there.
  std::string refusal(const Json& body, const std::string& path = "/v1/chat/completions") const {
    return fault_of(post(body, path));
  }
  static std::string fault_of(const std::string& response) {
    const Json error = Json::parse(body_of(response)).at("error");
    for (const char* member : {"message", "type", "param", "code"}) error.at(member);
    return concat(status_of(response), " ", error["type"].get<std::string>(), " ",
                  error["code"].get<std::string>(), " ",
                  error["param"].is_null() ? "-" : error["param"].get<std::string>());
  }
  // The payloads of a stream's events, "[DONE]" among them.
  std::vector<std::string> stream(Json body,
                                  const std::string& path = "/v1/chat/completions") const {
    body["stream"] = true;
    RawClient client(port());
    client.send(post_request(path, body.dump()));
    return events_of(client.read_until("0\r\n\r\n"));
  }
  static std::vector<std::string> events_of(const std::string& response) {
    std::vector<std::string> events;
    for (std::size_t at = 0; (at = response.find("data: ", at)) != std::string::npos;) {
      const auto end = response.find("\n\n", at);
      events.push_back(response.substr(at + 6, end - at - 6));
      at = end;
    }
    return events;
  }
  double metric(const std::string& name) const {
    const std::string text = "\n" + body_of(get("/metrics"));
    const auto at = text.find("\n" + name + " ");
    return at == std::string::npos ? 0 : std::stod(text.substr(at + name.size() + 2));
  }

 private:
  Service service_;
  std::unique_ptr<HttpServer> server_;
};

inline std::string shape_uri(const std::string& name) {
  return "data:image/png;base64," + data::encode_base64(read_file(kShapes / (name + ".png")));
}

inline Json shape_part(const std::string& name) {
  return {{"type", "image_url"}, {"image_url", {{"url", shape_uri(name)}}}};
}

// One question about pictures.
inline Json shape_body(const std::string& question,
                       const std::vector<std::string>& names = {"shape_049"},
                       const Json& fields = Json::object()) {
  Json content = Json::array();
  for (const std::string& name : names) content.push_back(shape_part(name));
  content.push_back({{"type", "text"}, {"text", question}});
  Json body = {{"messages", Json::array({{{"role", "user"}, {"content", content}}})}};
  body.update(fields);
  return body;
}

// An answer that lasts until it is cancelled or the context is full.
inline Json endless_body(const Json& fields = Json::object()) {
  Json all = {{"min_tokens", 100'000}};
  all.update(fields);
  return shape_body("what shape is in the image?", {"shape_049"}, all);
}

inline std::string content_of(const OrderedJson& reply, std::size_t index = 0) {
  return reply["choices"][index]["message"]["content"];
}

// Waits until it is so, at most 20 s.
inline bool comes_true(const std::function<bool()>& is_so) {
  for (int i = 0; i < 2000; ++i) {
    if (is_so()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace vlm::infer
