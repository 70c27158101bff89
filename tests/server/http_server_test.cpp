// The HTTP layer over raw sockets: good requests, hostile ones, and clients that are slow or leave.
#include "infer/server/http/http_server.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "infer/server/http/http_head.h"
#include "tests/support/catch.h"
#include "tests/support/raw_client.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/thrown.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

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

HttpOptions quick_options() {
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

TEST_CASE("a request is answered and the connection kept") {
  TestServer test;
  RawClient client(test.server.port());
  client.send(get_request("/a%20b/c?x=1&y"));
  const std::string first = client.read_response();
  CHECK(first.starts_with("HTTP/1.1 200 OK\r\nDate: "));
  CHECK(body_of(first) == "GET /a%20b/c x=1&y 0 ");
  CHECK(first.find("\r\nX-Request-Id: req-") != std::string::npos);
  CHECK(first.find("\r\nX-Content-Type-Options: nosniff\r\n") != std::string::npos);
  CHECK(first.find("Server") == std::string::npos);
  // Line ends in a header's value begin no new header.
  CHECK(first.find("\r\nx-own: ab\r\n") != std::string::npos);
  client.send(post_request("/echo", "hello", "X-Request-Id: my-1.a_b\r\n"));
  const std::string second = client.read_response();
  CHECK(body_of(second) == "POST /echo  5 hello");
  CHECK(second.find("\r\nX-Request-Id: my-1.a_b\r\n") != std::string::npos);
  const auto ends = test.handler.wait_for_ends(2);
  CHECK(ends[1].id == "my-1.a_b");
  CHECK(ends[1].path == "/echo");
  CHECK(ends[1].status == 200);
  CHECK_FALSE(ends[1].is_gone);
  CHECK(test.server.stats().connections == 1);
}

TEST_CASE("a request id that is no plain word is replaced") {
  TestServer test;
  for (const std::string id : {"a b", "a\"b", std::string(129, 'a').c_str(), "\xc3\xa4"}) {
    RawClient client(test.server.port());
    client.send(get_request("/", "X-Request-Id: " + id + "\r\n"));
    CHECK(client.read_response().find("X-Request-Id: req-") != std::string::npos);
  }
}

TEST_CASE("HEAD has the length and no body; HTTP/1.0 ends the connection") {
  TestServer test;
  RawClient client(test.server.port());
  client.send("HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  client.send(get_request("/b"));
  const std::string both = client.read_until("GET /b");
  CHECK(both.find("Content-Length: 11\r\n") != std::string::npos);
  CHECK(both.find("HEAD /a") == std::string::npos);
  const std::string old = test.answer("GET /c HTTP/1.0\r\n\r\n");
  CHECK(body_of(old) == "GET /c  0 ");
  CHECK(old.find("Connection: close\r\n") != std::string::npos);
}

TEST_CASE("pipelined requests are answered one after the other") {
  TestServer test;
  RawClient client(test.server.port());
  std::string all;
  for (int i = 0; i < 50; ++i) all += post_request(concat("/", i), concat("body ", i));
  client.send(all);
  for (int i = 0; i < 50; ++i) {
    const std::string body = concat("body ", i);
    CHECK(body_of(client.read_response()) == concat("POST /", i, "  ", body.size(), " ", body));
  }
}

TEST_CASE("what parsers disagree about is refused") {
  TestServer test;
  const std::string host = "Host: localhost\r\n";
  struct Case {
    std::string bytes;
    int status;
    std::string code;
  };
  const std::vector<Case> cases = {
      {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411,
       "length_required"},
      {"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411,
       "length_required"},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400,
       "invalid_http"},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\na", 400,
       "invalid_http"},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n\r\na", 400, "invalid_http"},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\na", 400, "invalid_http"},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 0x1\r\n\r\na", 400, "invalid_http"},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\na", 400,
       "invalid_http"},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999\r\n\r\na", 413,
       "body_too_large"},
      {"GET / HTTP/1.1\r\n" + host + host + "\r\n", 400, "invalid_http"},
      {"GET / HTTP/1.1\r\n\r\n", 400, "invalid_http"},
      {"GET / HTTP/2.0\r\n" + host + "\r\n", 400, "invalid_http"},
      {"GET / HTTP/1.2\r\n" + host + "\r\n", 400, "invalid_http"},
      {"GET / HTTPS/1.1\r\n" + host + "\r\n", 400, "invalid_http"},
      {"GET http://localhost/ HTTP/1.1\r\n" + host + "\r\n", 400, "invalid_http"},
      {"GET  / HTTP/1.1\r\n" + host + "\r\n", 400, "invalid_http"},
      {"GET / HTTP/1.1\r\n" + host + "a b: c\r\n\r\n", 400, "invalid_http"},
      {"GET / HTTP/1.1\r\n" + host + "a : c\r\n\r\n", 400, "invalid_http"},
      {"GET / HTTP/1.1\r\n" + host + "a: " + std::string("b\0c", 3) + "\r\n\r\n", 400,
       "invalid_http"},
      {"GET / HTTP/1.1\r\n" + host + "Expect: tea\r\n\r\n", 417, "invalid_http"},
      {"GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n" + host + "\r\n", 414, "url_too_long"},
      {"GET / HTTP/1.1\r\n" + host + "a: " + std::string(1 << 20, 'b') + "\r\n\r\n", 431,
       "headers_too_long"},
      {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + std::string(50, 'x') + "\r\n\r\n", 400,
       "invalid_http"},
      {std::string(100'000, 'A'), 431, "headers_too_long"}};
  for (const Case& one : cases) {
    INFO(one.bytes.substr(0, 120));
    const std::string response = test.answer(one.bytes);
    CHECK(status_of(response) == one.status);
    CHECK(body_of(response).starts_with(one.code + ": "));
    CHECK(response.find("Connection: close\r\n") != std::string::npos);
    // Nothing behind it is taken for a second request.
    CHECK(response.find("HTTP/1.1", 1) == std::string::npos);
  }
  std::string many = "GET / HTTP/1.1\r\n" + host;
  for (int i = 0; i < 10'000; ++i) many += concat("h", i, ": v\r\n");
  CHECK(status_of(test.answer(many + "\r\n")) == 431);
  CHECK(test.handler.requests.empty());
}

TEST_CASE("a head that comes byte by byte is read, one that doesn't end is given up") {
  HttpOptions options = quick_options();
  options.header_time = milliseconds(200);
  TestServer test(options);
  RawClient slow(test.server.port());
  for (const char c : get_request("/slow")) slow.send(std::string_view(&c, 1));
  CHECK(body_of(slow.read_response()) == "GET /slow  0 ");
  RawClient silent(test.server.port());
  CHECK(silent.read_all() == "");  // closed without a word
  RawClient half(test.server.port());
  half.send("GET / HTTP/1.1\r\nHost: loc");
  const std::string response = half.read_all();
  CHECK(status_of(response) == 408);
  CHECK(body_of(response).starts_with("request_timeout: "));
}

TEST_CASE("a body that doesn't come in time is given up; a kept connection, too") {
  HttpOptions options = quick_options();
  options.body_time = milliseconds(200);
  options.idle_time = milliseconds(200);
  TestServer test(options);
  RawClient client(test.server.port());
  client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc");
  const std::string response = client.read_all();
  CHECK(status_of(response) == 408);
  CHECK(test.handler.requests.empty());
  RawClient idle(test.server.port());
  idle.send(get_request("/"));
  CHECK(status_of(idle.read_response()) == 200);
  CHECK(idle.has_ended());
  // A large body has longer, by the least rate.
  options.body_bytes_per_s = 100;
  TestServer patient(options);
  RawClient large(patient.server.port());
  large.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\nabc");
  std::this_thread::sleep_for(milliseconds(600));
  large.send(std::string(197, 'd'));
  CHECK(status_of(large.read_response()) == 200);
}

TEST_CASE("100-continue is answered before the body") {
  TestServer test;
  RawClient client(test.server.port());
  client.send(
      "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\n");
  CHECK(client.read_until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abcd");
  CHECK(client.read_until("abcd").find("POST /x  4 abcd") != std::string::npos);
  // A request that is refused isn't told to go on.
  RawClient refused(test.server.port());
  refused.send(
      "POST /forbidden HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
      "Expect: 100-continue\r\n\r\n");
  const std::string response = refused.read_all();
  CHECK(response.starts_with("HTTP/1.1 403 Forbidden\r\n"));
  CHECK(response.find("Connection: close") != std::string::npos);
}

TEST_CASE("a refusal is read even while the client still sends") {
  TestServer test;
  RawClient client(test.server.port());
  const std::string body(2 << 20, 'b');
  client.send(post_request("/forbidden", body));
  CHECK(status_of(client.read_all()) == 403);
}

TEST_CASE("bodies are bounded, one and all together") {
  HttpOptions options = quick_options();
  options.max_body_bytes = 1000;
  options.max_bodies_bytes = 1500;
  TestServer test(options);
  CHECK(status_of(test.answer(post_request("/", std::string(1001, 'a')))) == 413);
  RawClient first(test.server.port());
  first.send(post_request("/wait", std::string(1000, 'a')));
  test.handler.wait_for_exchange();
  CHECK(test.server.stats().body_bytes == 1000);
  const std::string response = test.answer(post_request("/", std::string(600, 'a')));
  CHECK(status_of(response) == 429);
  CHECK(body_of(response).starts_with("queue_full: "));
  test.handler.wait_for_exchange()->reply({.body = "done"});
  CHECK(body_of(first.read_response()) == "done");
  RawClient second(test.server.port());
  second.send(post_request("/", std::string(600, 'a')));
  CHECK(status_of(second.read_response()) == 200);
  CHECK(test.server.stats().body_bytes == 0);
}

TEST_CASE("a client that leaves is noticed while it waits, a half-closed one, too") {
  TestServer test;
  {
    RawClient client(test.server.port());
    client.send(get_request("/wait"));
    CHECK_FALSE(test.handler.wait_for_exchange()->is_gone());
  }
  CHECK(test.handler.wait_for_ends(1)[0].is_gone);
  CHECK(test.handler.ends[0].status == 499);
  CHECK(test.handler.gone == 1);
  CHECK(test.handler.exchanges[0]->is_gone());
  RawClient half(test.server.port());
  half.send(get_request("/stream"));
  test.handler.wait_for_exchange(2)->send("a");
  half.read_until("1\r\na\r\n");
  half.end_sending();
  CHECK(half.has_ended());
  const auto ends = test.handler.wait_for_ends(2);
  CHECK(ends[1].is_gone);
  CHECK(ends[1].status == 200);
  // A callback that comes late is called at once; replies to nobody do nothing.
  int called = 0;
  test.handler.exchanges[1]->on_gone([&] { ++called; });
  CHECK(called == 1);
  test.handler.exchanges[1]->reply({.body = "late"});
  CHECK(test.server.stats().streams == 0);
}

TEST_CASE("a body that was begun and left counts as gone") {
  TestServer test;
  {
    RawClient client(test.server.port());
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc");
    std::this_thread::sleep_for(milliseconds(50));
  }
  const auto ends = test.handler.wait_for_ends(1);
  CHECK(ends[0].is_gone);
  CHECK(ends[0].status == 499);
  CHECK(test.handler.requests.empty());
  CHECK(test.server.stats().body_bytes == 0);
}

TEST_CASE("a stream is chunked, beats in silence, and ends") {
  HttpOptions options = quick_options();
  options.beat_time = milliseconds(100);
  TestServer test(options);
  RawClient client(test.server.port());
  client.send(get_request("/stream"));
  const auto exchange = test.handler.wait_for_exchange();
  exchange->send("data: hello\n\n");
  const std::string piece = client.read_until("hello\n\n\r\n");
  CHECK(piece.find("Transfer-Encoding: chunked\r\n") != std::string::npos);
  CHECK(piece.find("Content-Length") == std::string::npos);
  CHECK(piece.ends_with("\r\n\r\nd\r\ndata: hello\n\n\r\n"));
  CHECK(client.read_until("8\r\n: beat\n\n\r\n").ends_with("8\r\n: beat\n\n\r\n"));
  CHECK(test.server.stats().streams == 1);
  exchange->end_stream();
  client.read_until("0\r\n\r\n");
  client.send(get_request("/next"));
  CHECK(client.read_until("GET /next").find("GET /next") != std::string::npos);
  CHECK(test.server.stats().streams == 0);
  CHECK_FALSE(test.handler.wait_for_ends(1)[0].is_gone);
}

TEST_CASE("a stream for HTTP/1.0 has no chunks and ends with the connection") {
  TestServer test;
  RawClient client(test.server.port());
  client.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto exchange = test.handler.wait_for_exchange();
  exchange->send("one ");
  exchange->send("two");
  exchange->end_stream();
  const std::string response = client.read_all();
  CHECK(body_of(response) == "one two");
  CHECK(response.find("chunked") == std::string::npos);
}

TEST_CASE("a client that doesn't read its stream is left") {
  HttpOptions options = quick_options();
  options.max_unsent_bytes = 64 << 10;
  TestServer test(options);
  RawClient client(test.server.port());
  client.send(get_request("/stream"));
  const auto exchange = test.handler.wait_for_exchange();
  const std::string piece(10'000, 'a');
  for (int i = 0; i < 5000 && !exchange->is_gone(); ++i) {
    exchange->send(piece);
    if (i % 100 == 0) std::this_thread::sleep_for(milliseconds(5));
  }
  CHECK(test.handler.wait_for_ends(1)[0].is_gone);
  CHECK(test.handler.gone == 1);
}

TEST_CASE("a reader without progress is left, whatever it reads") {
  HttpOptions options = quick_options();
  options.write_time = milliseconds(300);
  options.max_unsent_bytes = 1LL << 30;
  TestServer test(options);
  RawClient client(test.server.port());
  client.send(get_request("/stream"));
  test.handler.wait_for_exchange()->send(std::string(64 << 20, 'a'));
  CHECK(test.handler.wait_for_ends(1)[0].is_gone);
}

TEST_CASE("requests that come while one is answered wait for it") {
  TestServer test;
  RawClient client(test.server.port());
  client.send(get_request("/wait") + get_request("/second"));
  const auto exchange = test.handler.wait_for_exchange();
  std::this_thread::sleep_for(milliseconds(50));
  CHECK(test.handler.requests.size() == 1);
  CHECK_FALSE(exchange->is_gone());
  exchange->reply({.body = "first"});
  CHECK(body_of(client.read_response()) == "first");
  CHECK(body_of(client.read_response()) == "GET /second  0 ");
}

TEST_CASE("connections over the limit are closed, and places get free again") {
  HttpOptions options = quick_options();
  options.max_connections = 3;
  TestServer test(options);
  {
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(std::make_unique<RawClient>(test.server.port()));
      clients.back()->send(get_request("/"));
      CHECK(status_of(clients.back()->read_response()) == 200);
    }
    RawClient more(test.server.port());
    CHECK(more.has_ended());
    CHECK(test.server.stats().refused_connections == 1);
  }
  for (int i = 0; i < 200 && test.server.stats().connections > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  RawClient again(test.server.port());
  again.send(get_request("/"));
  CHECK(status_of(again.read_response()) == 200);
}

TEST_CASE("many connections opened and closed leave nothing") {
  TestServer test;
  for (int i = 0; i < 2000; ++i) {
    RawClient client(test.server.port());
    if (i % 3 == 0) client.send("GET / HT");
    if (i % 3 == 1) client.send(get_request("/"));
  }
  for (int i = 0; i < 500 && test.server.stats().connections > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  CHECK(test.server.stats().connections == 0);
}

TEST_CASE("a server that ends takes nothing new, finishes, and says so") {
  TestServer test;
  RawClient idle(test.server.port()), busy(test.server.port());
  idle.send(get_request("/"));
  CHECK(status_of(idle.read_response()) == 200);
  busy.send(get_request("/wait"));
  test.handler.wait_for_exchange(2);
  test.server.stop_accepting();
  CHECK(idle.has_ended());
  CHECK_FALSE(test.server.wait_until_idle(milliseconds(50)));
  RawClient late(test.server.port());
  CHECK((!late.is_connected() || late.has_ended()));
  test.handler.exchanges[1]->reply({.body = "last"});
  const std::string response = busy.read_all();
  CHECK(body_of(response) == "last");
  CHECK(response.find("Connection: close") != std::string::npos);
  CHECK(test.server.wait_until_idle(milliseconds(5000)));
  test.server.stop();
  // What is held longer than the server does nothing.
  test.handler.exchanges[1]->send("x");
}

TEST_CASE("a server that is stopped leaves its clients") {
  TestServer test;
  RawClient client(test.server.port());
  client.send(get_request("/wait"));
  test.handler.wait_for_exchange();
  test.server.stop();
  CHECK(client.has_ended());
  CHECK(test.handler.wait_for_ends(1)[0].is_gone);
}

TEST_CASE("addresses: a port in use, a name, a Unix socket") {
  TestServer test;
  HttpOptions options = quick_options();
  options.port = test.server.port();
  TestHandler handler;
  const std::string text = thrown_by([&] { HttpServer second(options, handler); });
  CHECK(text == concat("127.0.0.1:", test.server.port(),
                       ": can't listen: got Address already in use (--port takes another one)"));
  CHECK(test.server.address() == concat("http://127.0.0.1:", test.server.port()));
  CHECK(test.server.is_loopback());
  options.port = 0;
  options.host = "no.such.host.invalid";
  CHECK(thrown_by([&] {
          HttpServer second(options, handler);
        }).starts_with("no.such.host.invalid:0: can't listen: got Host not found"));

  const ScratchFolder scratch;
  const std::string path = (scratch.path() / "socket").string();
  options.host = "unix:" + path;
  for (int i = 0; i < 2; ++i) {  // the second time over what the first has left, if anything
    TestServer local(options);
    CHECK(local.server.address() == "unix:" + path);
    RawClient client(path);
    REQUIRE(client.is_connected());
    client.send(get_request("/"));
    CHECK(status_of(client.read_response()) == 200);
    CHECK(local.handler.requests[0].peer == "");
    HttpOptions same = options;
    CHECK(thrown_by([&] { HttpServer second(same, handler); }).find("can't listen") !=
          std::string::npos);
  }
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("sizes of chunks are hexadecimal") {
  CHECK(chunk_of("a") == "1\r\na\r\n");
  const std::string piece(1000, 'x');
  CHECK(chunk_of(piece) == "3e8\r\n" + piece + "\r\n");
}

}  // namespace
}  // namespace vlm::infer
