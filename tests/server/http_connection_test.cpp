// Clients that leave, streams, clients that are slow, limits on connections, and the end of a
// server.
#include <filesystem>

#include "tests/server/http_test_server.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/thrown.h"

namespace vlm::infer {
namespace {

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
  {
    RawClient last(test.server.port());  // connections are accepted in their order
    last.send(get_request("/"));
    CHECK(status_of(last.read_response()) == 200);
  }
  std::int64_t open = 1;
  for (int i = 0; i < 500 && open > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    open = test.server.stats().connections;
  }
  CHECK(open == 0);
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

}  // namespace
}  // namespace vlm::infer
