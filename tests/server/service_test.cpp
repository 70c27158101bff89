// Routes, refusals, limits, cancelling and the end of a server.
#include "infer/server/service.h"

#include <nlohmann/json.hpp>

#include "tests/server/served.h"
#include "tests/support/logged_lines.h"

namespace vlm::infer {
namespace {

const std::string kChat = "/v1/chat/completions";

TEST_CASE("models, health, props and metrics") {
  ServedOptions options;
  options.source.names = {"org/shapes", "gpt-4o"};
  const Served served(options);
  CHECK(body_of(served.get("/health")) == R"({"status":"ok"})");
  const OrderedJson list = OrderedJson::parse(body_of(served.get("/v1/models")));
  REQUIRE(list["data"].size() == 2);
  const OrderedJson& model = list["data"][0];
  CHECK(model["id"] == "org/shapes");
  CHECK(model["root"] == "org/shapes");
  CHECK(model["parent"].is_null());
  CHECK(model["max_model_len"] == 2048);
  CHECK(model["architecture"]["input_modalities"] == OrderedJson({"text", "image", "video"}));
  CHECK(list["data"][1]["id"] == "gpt-4o");
  for (const char* path : {"/v1/models/org/shapes", "/v1/models/org%2Fshapes", "/models/gpt-4o"}) {
    CHECK(status_of(served.get(path)) == 200);
  }
  CHECK(Served::fault_of(served.get("/v1/models/other")) ==
        "404 invalid_request_error model_not_found model");
  CHECK(OrderedJson::parse(body_of(served.get("/props")))["modalities"]["vision"] == true);
  // Clients with a fixed name, and none.
  CHECK(served.ask(shape_body("?", {}, {{"model", "gpt-4o"}}))["model"] == "gpt-4o");
  CHECK(served.ask(shape_body("?", {}))["model"] == "org/shapes");
  CHECK(served.refusal(shape_body("?", {}, {{"model", "gpt-5"}})) ==
        "404 invalid_request_error model_not_found model");
  const std::string metrics = served.get("/metrics");
  CHECK(metrics.find("Content-Type: text/plain; version=0.0.4\r\n") != std::string::npos);
  CHECK(metrics.find("\nvlm_requests_total{path=\"/chat/completions\",status=\"200\"} 2\n") !=
        std::string::npos);
  CHECK(served.metric("vlm_requests_total{path=\"/models/\",status=\"404\"}") == 1);
}

TEST_CASE("the page is served whole, once, and may load nothing from elsewhere") {
  const Served served;
  const std::string page = served.get("/");
  CHECK(page.find("\r\nContent-Type: text/html; charset=utf-8\r\n") != std::string::npos);
  CHECK(page.find("\r\nContent-Security-Policy: default-src 'none'; ") != std::string::npos);
  const std::string source = std::string(VLM_SOURCE_DIR) + "/infer/server/page/";
  CHECK(body_of(page) == read_file(source + "index.html"));
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(source)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".cpp") || name.ends_with(".h")) {
      CHECK(status_of(served.get("/" + name)) == 404);
      continue;
    }
    ++files;
    const std::string response = served.get("/" + name);
    CHECK(body_of(response) == read_file(source + name));
    const auto at = response.find("\r\nETag: ") + 8;
    const std::string tag = response.substr(at, response.find("\r\n", at) - at);
    const std::string again = served.get("/" + name, "If-None-Match: " + tag + "\r\n");
    CHECK(status_of(again) == 304);
    CHECK(body_of(again) == "");
  }
  CHECK(files == 12);
}

TEST_CASE("paths and methods that there aren't") {
  const Served served;
  CHECK(Served::fault_of(served.get("/nothing")) == "404 invalid_request_error not_found -");
  CHECK(Served::fault_of(served.post({}, "/v1/embeddings")) ==
        "404 invalid_request_error not_found -");
  CHECK(body_of(served.post({}, "/v1/embeddings")).find("this model makes text alone") !=
        std::string::npos);
  const std::string wrong = served.get(kChat);
  CHECK(Served::fault_of(wrong) == "405 invalid_request_error method_not_allowed -");
  CHECK(wrong.find("\r\nAllow: POST\r\n") != std::string::npos);
  CHECK(status_of(served.exchange("DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 405);
  // Base URLs without /v1, and with a slash too much.
  CHECK(status_of(served.post(shape_body("?", {}), "/chat/completions")) == 200);
  CHECK(status_of(served.post(shape_body("?", {}), "/v1/chat/completions/")) == 200);
}

TEST_CASE("bodies must be JSON that says so") {
  const Served served;
  const std::string body = shape_body("?", {}).dump();
  const auto with_type = [&](const std::string& type) {
    return served.exchange("POST " + kChat + " HTTP/1.1\r\nHost: localhost\r\n" + type +
                           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  };
  CHECK(status_of(with_type("Content-Type: Application/JSON; charset=utf-8\r\n")) == 200);
  for (const char* type :
       {"Content-Type: text/plain\r\n", "", "Content-Type: multipart/form-data\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n"}) {
    CHECK(Served::fault_of(with_type(type)) ==
          "415 invalid_request_error unsupported_media_type -");
  }
  CHECK(Served::fault_of(served.exchange(post_request(kChat, "{"))) ==
        "400 invalid_request_error invalid_json -");
  CHECK(served.refusal({{"messages", Json::array()}}) ==
        "400 invalid_request_error invalid_value messages");
}

TEST_CASE("what can't be answered is refused by name") {
  const Served served;
  CHECK(served.refusal(shape_body("?", {}, {{"tools", {{{"type", "function"}}}}})) ==
        "400 invalid_request_error unsupported_parameter tools");
  CHECK(served.refusal(shape_body("?", {}, {{"n", 2}, {"temperature", 0}})) ==
        "400 invalid_request_error invalid_value n");
  Json broken = shape_body("?", {"shape_049"});
  auto& url = broken["messages"][0]["content"][0]["image_url"]["url"];
  url = url.get<std::string>().substr(0, 200);
  CHECK(served.refusal(broken) ==
        "400 invalid_request_error invalid_image messages[0].content[0].image_url.url");
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "shape ";
  const std::string long_prompt = served.post(shape_body(text, {}));
  CHECK(Served::fault_of(long_prompt) ==
        "400 invalid_request_error context_length_exceeded messages");
  const Json error = Json::parse(body_of(long_prompt))["error"];
  CHECK(error["n_ctx"] == 2048);
  CHECK(error["n_prompt_tokens"].get<int>() >= 3000);
  CHECK(served.metric("vlm_requests_rejected_total{reason=\"context\"}") == 1);
  CHECK(served.metric("vlm_requests_rejected_total{reason=\"media\"}") == 1);
}

TEST_CASE("fields that nobody knows are named in a header, and counted") {
  const LoggedLines log(LogLevel::kWarning);
  const Served served;
  const std::string response =
      served.post(shape_body("?", {}, {{"options", Json::object()}, {"b\r\nc: d", 1}}));
  CHECK(status_of(response) == 200);
  CHECK(response.find("\r\nx-vlm-ignored: b??c??d, options\r\n") != std::string::npos);
  CHECK(served.metric("vlm_ignored_fields_total{field=\"options\"}") == 1);
}

TEST_CASE("bodies that programs send are answered") {
  const Served served;
  const std::string uri = shape_uri("shape_049");
  const std::string data = uri.substr(uri.find(',') + 1);
  const auto messages = [](const Json& content) {
    return Json::array({{{"role", "user"}, {"content", content}}});
  };
  const Json picture = {{"type", "image_url"}, {"image_url", {{"url", uri}, {"detail", "low"}}}};
  const std::vector<std::pair<std::string, Json>> bodies = {
      // A camera's program: several frames with detail low, a time limit.
      {"frames",
       {{"model", "easy-vqa-emoji"},
        {"messages",
         {{{"role", "user"},
           {"content", {picture, picture, {{"type", "text"}, {"text", "what is it?"}}}}}}},
        {"timeout", 60}}},
      // A home's: text in front of each picture.
      {"named pictures",
       {{"messages",
         {{{"role", "system"}, {"content", {{{"type", "text"}, {"text", "Be brief."}}}}},
          {{"role", "user"},
           {"content",
            {{{"type", "text"}, {"text", "Image 1:"}},
             picture,
             {{"type", "text"}, {"text", "Image 2:"}},
             picture,
             {{"type", "text"}, {"text", "what is it?"}}}}}}},
        {"max_completion_tokens", 100},
        {"temperature", 0.2},
        {"top_p", 1}}},
      // A labelling tool's.
      {"choices",
       {{"model", "easy-vqa-emoji"},
        {"messages", messages({picture, {{"type", "text"}, {"text", "what is it?"}}})},
        {"structured_outputs", {{"choice", {"circle", "square"}}}},
        {"temperature", 0.0},
        {"max_tokens", 16}}},
      // A web page that shows a camera: no model at all.
      {"webcam",
       {{"max_tokens", 100},
        {"messages", messages({{{"type", "text"}, {"text", "What do you see?"}}, picture})}}},
      // A chat page: fields of its own, an empty list of tools.
      {"chat page",
       {{"stream", false},
        {"model", "easy-vqa-emoji"},
        {"messages", messages({{{"type", "text"}, {"text", "what is it?"}}, picture})},
        {"session_id", "a"},
        {"chat_id", "b"},
        {"features", {{"web_search", false}}},
        {"tools", Json::array()}}},
      // Base64 alone.
      {"bare base64",
       {{"messages", messages({{{"type", "image_url"}, {"image_url", {{"url", data}}}},
                               {{"type", "text"}, {"text", "what is it?"}}})}}},
      // The text behind the picture, keys in another order.
      {"other order",
       {{"messages", messages({{{"image_url", {{"url", uri}}}, {"type", "image_url"}},
                               {{"text", "what is it?"}, {"type", "text"}}})},
        {"stream", false}}}};
  for (const auto& [name, body] : bodies) {
    INFO(name);
    const std::string response = served.post(body);
    INFO(response);
    CHECK(status_of(response) == 200);
  }
}

TEST_CASE("a client that leaves cancels its request, wherever it is") {
  ServedOptions options;
  options.engine.max_running = 1;
  Served served(options);
  const auto running = [&] { return served.metric("vlm_num_requests_running"); };
  for (const bool is_streamed : {true, false}) {
    RawClient first(served.port());
    first.send(post_request(kChat, endless_body({{"stream", is_streamed}}).dump()));
    REQUIRE(comes_true([&] { return running() == 1; }));
    // This one waits behind it.
    RawClient second(served.port());
    second.send(post_request(kChat, endless_body({{"stream", is_streamed}}).dump()));
    REQUIRE(comes_true([&] { return served.metric("vlm_num_requests_waiting") == 1; }));
    second.close();
    CHECK(comes_true([&] { return served.metric("vlm_num_requests_waiting") == 0; }));
    CHECK(running() == 1);
    first.close();
    CHECK(comes_true([&] { return running() == 0; }));
    // The place is free.
    CHECK(status_of(served.post(shape_body("what shape is in the image?"))) == 200);
  }
  const std::string cancelled =
      "vlm_request_finished_total{model=\"easy-vqa-emoji\",reason=\"cancelled\"}";
  CHECK(comes_true([&] { return served.metric(cancelled) == 4; }));
  CHECK(served.metric(cancelled) == 4);
}

TEST_CASE("a request that is cancelled leaves those beside it alone") {
  Served served;
  const Json body = endless_body({{"max_tokens", 200}});
  const std::string wanted = content_of(served.ask(body));
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      for (int j = 0; j < 5; ++j) {
        const std::string response = served.post(body);
        right += status_of(response) == 200 &&
                 content_of(OrderedJson::parse(body_of(response))) == wanted;
      }
    });
    clients.emplace_back([&, i] {
      for (int j = 0; j < 10; ++j) {
        RawClient client(served.port());
        client.send(post_request(kChat, endless_body().dump()));
        std::this_thread::sleep_for(std::chrono::milliseconds(5 + 7 * i));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  CHECK(right == 20);
}

TEST_CASE("more than the queue holds is refused, with a time to come again") {
  ServedOptions options;
  options.engine.max_running = 1;
  options.engine.max_waiting = options.service.max_queue = 1;
  Served served(options);
  RawClient first(served.port()), second(served.port());
  first.send(post_request(kChat, endless_body().dump()));
  REQUIRE(comes_true([&] { return served.metric("vlm_num_requests_running") == 1; }));
  second.send(post_request(kChat, endless_body().dump()));
  REQUIRE(comes_true([&] { return served.metric("vlm_num_requests_waiting") == 1; }));
  const std::string response = served.post(shape_body("?", {}));
  CHECK(Served::fault_of(response) == "429 rate_limit_error queue_full -");
  CHECK(response.find("\r\nRetry-After: ") != std::string::npos);
}

TEST_CASE("a key is needed on every path but health") {
  ServedOptions options;
  options.service.access.keys = {"secret"};
  const Served served(options);
  for (const char* path :
       {"/v1/models", "/v1/models/x", "/metrics", "/props", "/nothing", "/v1/nothing"}) {
    INFO(path);
    CHECK(Served::fault_of(served.get(path)) == "401 invalid_request_error invalid_api_key -");
  }
  for (const char* path :
       {"/v1/chat/completions", "/chat/completions", "/v1/completions", "/v1/responses",
        "/v1/chat/completions/input_tokens", "/v1/embeddings"}) {
    const std::string response = served.post(shape_body("?", {}), path);
    CHECK(Served::fault_of(response) == "401 invalid_request_error invalid_api_key -");
    CHECK(response.find("\r\nWWW-Authenticate: Bearer\r\n") != std::string::npos);
  }
  for (const char* path : {"/health", "/", "/page.js", "/style.css", "/icon.svg"}) {
    CHECK(status_of(served.get(path)) == 200);
  }
  const std::string key = "Authorization: Bearer secret\r\n";
  CHECK(status_of(served.get("/v1/models", key)) == 200);
  CHECK(status_of(served.post(shape_body("?", {}), kChat, key)) == 200);
  CHECK(body_of(served.get("/nothing", "Authorization: Bearer secre\r\n")).find("secre\"") ==
        std::string::npos);
}

TEST_CASE("web pages and names of other hosts") {
  ServedOptions options;
  options.service.access.cors_origins = {"https://a.example"};
  const Served served(options);
  CHECK(Served::fault_of(served.get("/v1/models", "Origin: https://b.example\r\n")) ==
        "403 invalid_request_error forbidden_origin -");
  CHECK(Served::fault_of(served.exchange("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n")) ==
        "403 invalid_request_error forbidden_origin -");
  const std::string allowed = served.get("/v1/models", "Origin: https://a.example\r\n");
  CHECK(allowed.find("\r\nAccess-Control-Allow-Origin: https://a.example\r\n") !=
        std::string::npos);
  const std::string preflight = served.exchange(
      "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n");
  CHECK(status_of(preflight) == 204);
  // Errors can be read by the page, too.
  CHECK(served.post({}, kChat, "Origin: https://a.example\r\n").find("Access-Control-Allow") !=
        std::string::npos);
}

TEST_CASE("until the model is there, requests are told to come again") {
  Service service({});
  HttpOptions http;
  http.port = 0;
  HttpServer server(http, service);
  service.attach(server);
  server.start();
  const auto get = [&](const std::string& path) {
    RawClient client(server.port());
    client.send(get_request(path));
    return client.read_response();
  };
  CHECK(status_of(get("/health")) == 503);
  CHECK(Served::fault_of(get("/v1/models")) == "503 server_error model_loading -");
  CHECK(get("/v1/models").find("\r\nRetry-After: 2\r\n") != std::string::npos);
  server.stop();
}

TEST_CASE("a picture may come again by its uuid, for the same key alone") {
  ServedOptions options;
  options.service.access.keys = {"first", "second"};
  const Served served(options);
  const auto ask = [&](const Json& body, const std::string& key) {
    return served.post(body, kChat, "Authorization: Bearer " + key + "\r\n");
  };
  Json body = shape_body("what shape is in the image?", {"shape_074"});
  Json& part = body["messages"][0]["content"][0];
  part["uuid"] = "one";
  const std::string whole = ask(body, "first");
  REQUIRE(status_of(whole) == 200);
  part = {{"type", "image_url"}, {"image_url", nullptr}, {"uuid", "one"}};
  const std::string again = ask(body, "first");
  REQUIRE(status_of(again) == 200);
  CHECK(content_of(OrderedJson::parse(body_of(again))) ==
        content_of(OrderedJson::parse(body_of(whole))));
  CHECK(Served::fault_of(ask(body, "second")) ==
        "400 invalid_request_error invalid_image messages[0].content[0].uuid");
  part["uuid"] = "other";
  CHECK(Served::fault_of(ask(body, "first")) ==
        "400 invalid_request_error invalid_image messages[0].content[0].uuid");
}

TEST_CASE("what is kept by uuid is bounded") {
  KnownMedia known(10);
  const auto bytes = [](std::size_t count) {
    return std::make_shared<const std::string>(count, 'x');
  };
  known.keep(0, "a", bytes(4));
  known.keep(0, "b", bytes(4));
  CHECK(known.find(0, "a")->size() == 4);
  CHECK_FALSE(known.find(1, "a"));
  known.keep(0, "c", bytes(4));  // "b" was used longest ago
  CHECK_FALSE(known.find(0, "b"));
  CHECK(known.find(0, "a"));
  known.keep(0, "a", bytes(6));
  CHECK(known.find(0, "a")->size() == 6);
  CHECK(known.find(0, "c"));
  known.keep(0, "d", bytes(11));
  CHECK_FALSE(known.find(0, "d"));
}

TEST_CASE("one key's requests don't take all places") {
  ServedOptions options;
  options.service.access.keys = {"first", "second"};
  options.service.max_per_key = 1;
  const Served served(options);
  const std::string first = "Authorization: Bearer first\r\n";
  const auto ask = [&](const std::string& key) {
    return served.post(shape_body("?", {}, {{"max_tokens", 1}}), kChat, key);
  };
  RawClient running(served.port());
  running.send(post_request(kChat, endless_body({{"stream", true}}).dump(), first));
  running.read_until("data: ");
  const std::string refused = ask(first);
  CHECK(Served::fault_of(refused) == "429 rate_limit_error queue_full -");
  CHECK(refused.find("\r\nRetry-After: 1\r\n") != std::string::npos);
  CHECK(status_of(ask("Authorization: Bearer second\r\n")) == 200);
  CHECK(status_of(ask("x-api-key: second\r\n")) == 200);  // its place was free again
  running.close();
  CHECK(comes_true([&] { return status_of(ask(first)) == 200; }));
}

TEST_CASE("the document's table of metrics is what /metrics has") {
  const ServedOptions options;
  const Served served(options);
  const Json schema = {{"type", "object"}, {"properties", {{"a", {{"type", "boolean"}}}}}};
  const std::vector<Json> bodies = {
      shape_body("?", {"shape_049"}, {{"max_tokens", 4}, {"nobody_knows", 1}}),
      shape_body("?", {}, {{"max_tokens", 9}, {"structured_outputs", {{"json", schema}}}})};
  for (const Json& body : bodies) served.ask(body);
  served.stream(endless_body({{"max_tokens", 8}}));
  served.refusal(shape_body("?", {}, {{"n", 0}}));
  std::map<std::string, std::string> wanted, found;
  const std::string document = read_file(std::string(VLM_SOURCE_DIR) + "/docs/serving.md");
  // "| `vlm_a`, `vlm_b` | counter; path | …"
  for (std::size_t at = 0; (at = document.find("\n| `", at)) != std::string::npos; ++at) {
    const std::string line = document.substr(at + 1, document.find('\n', at + 1) - at - 1);
    const auto cell = line.find(" | ");
    const std::string type = line.substr(cell + 3, line.find_first_of("; ", cell + 3) - cell - 3);
    for (std::size_t i = 0; (i = line.find('`', i)) < cell; ++i) {
      const std::string name = line.substr(i + 1, line.find('`', i + 1) - i - 1);
      if (name.starts_with("vlm_") || name.starts_with("process_")) wanted[name] = type;
      i = line.find('`', i + 1);
    }
  }
  // Counted with the first adapter (adapters_test.cpp).
  wanted.erase("vlm_lora_requests_total");
  const std::string metrics = body_of(served.get("/metrics"));
  for (std::size_t at = 0; (at = metrics.find("# TYPE ", at)) != std::string::npos; ++at) {
    const auto space = metrics.find(' ', at + 7);
    found[metrics.substr(at + 7, space - at - 7)] =
        metrics.substr(space + 1, metrics.find('\n', at) - space - 1);
  }
  CHECK(wanted.size() > 40);
  CHECK(found == wanted);
}

TEST_CASE("a server that ends finishes what runs, and fails the rest in words") {
  ServedOptions options;
  options.engine.max_running = 1;
  Served served(options);
  RawClient running(served.port()), waiting(served.port()), kept(served.port());
  kept.send(get_request("/v1/models"));
  kept.read_response();
  running.send(post_request(kChat, endless_body({{"stream", true}}).dump()));
  running.read_until("data: ");
  waiting.send(post_request(kChat, endless_body().dump()));
  REQUIRE(comes_true([&] { return served.metric("vlm_num_requests_waiting") == 1; }));
  std::thread end([&] {
    served.server().stop_accepting();
    served.service().drain(0.5);
  });
  CHECK(Served::fault_of(waiting.read_response()) == "503 server_error shutting_down -");
  const auto events = Served::events_of(running.read_until("0\r\n\r\n"));
  REQUIRE(events.size() > 2);
  CHECK(events.back() == "[DONE]");
  const Json error = Json::parse(events[events.size() - 2])["error"];
  CHECK(error["code"] == "shutting_down");
  end.join();
  CHECK(served.server().wait_until_idle(std::chrono::seconds(5)));
}

TEST_CASE("one line of the log a request, without what was asked") {
  LoggedLines log;
  {
    const Served served;
    set_log_level(LogLevel::kInfo);
    served.post(shape_body("what shape is in the image?"), kChat, "X-Request-Id: my-id\r\n");
    CHECK(comes_true([&] { return log.text.find("my-id") != std::string::npos; }));
  }
  CHECK(log.text.find(" my-id POST /v1/chat/completions 200 ") != std::string::npos);
  CHECK(log.text.find("model=easy-vqa-emoji") != std::string::npos);
  CHECK(log.text.find("pictures=1") != std::string::npos);
  CHECK(log.text.find("finish=stop") != std::string::npos);
  CHECK(log.text.find("shape is") == std::string::npos);
}

}  // namespace
}  // namespace vlm::infer
