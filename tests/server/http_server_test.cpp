// The HTTP layer over raw sockets: good requests and hostile ones.
#include "infer/server/http/http_server.h"

#include "infer/server/http/http_head.h"
#include "tests/server/http_test_server.h"
#include "tests/support/catch.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

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
  test.handler.wait_for_ends(4);
  CHECK(test.server.stats().body_bytes == 0);
}

TEST_CASE("sizes of chunks are hexadecimal") {
  CHECK(chunk_of("a") == "1\r\na\r\n");
  const std::string piece(1000, 'x');
  CHECK(chunk_of(piece) == "3e8\r\n" + piece + "\r\n");
}

}  // namespace
}  // namespace vlm::infer
