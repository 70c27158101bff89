// Addresses, certificates, proxies and limits of a single request.
#include "vlm/io/hub/http.h"

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/hub/hub_server.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

TEST_CASE("an origin is scheme, host and port") {
  CHECK(url_origin("https://HuggingFace.co/a?b") == "https://huggingface.co:443");
  CHECK(url_origin("http://h") == "http://h:80");
  CHECK(url_origin("http://h:8080/x") == "http://h:8080");
  CHECK(url_origin("http://127.0.0.1:1") != url_origin("http://localhost:1"));
  CHECK(url_origin("https://h") != url_origin("http://h"));
  CHECK(url_origin("https://h:444") != url_origin("https://h"));
}

TEST_CASE("a redirect's address is read from where it was given") {
  CHECK(join_url("http://h/a/b?c", "/x") == "http://h/x");
  CHECK(join_url("http://h/a/b?c", "x?y=1") == "http://h/a/x?y=1");
  CHECK(join_url("http://h/a", "https://other/x") == "https://other/x");
  CHECK(join_url("https://h/a", "//other/x") == "https://other/x");
}

TEST_CASE("only http and https are followed, and no user names") {
  for (const std::string bad : {"file:///etc/passwd", "ftp://h/x", "gopher://h", "javascript:1",
                                "https://huggingface.co@evil/x", "http://h\n/x", "http://"}) {
    INFO(bad);
    CHECK_THROWS_WITH(join_url("https://h/a", bad), Contains("not an address that is followed"));
  }
  CHECK_THROWS_WITH(url_origin(std::string("http://h\0.evil/", 15)),
                    Contains("not an address that is followed"));
}

TEST_CASE("names become parts of an address, foreign text becomes harmless") {
  CHECK(percent_encode("refs/pr/1") == "refs%2Fpr%2F1");
  CHECK(percent_encode("a-Z_0.9~ ?#%\xc3\xa9") == "a-Z_0.9~%20%3F%23%25%C3%A9");
  CHECK(printable("plain text") == "plain text");
  CHECK(printable("a\x1b[2J\n\xc2\x9b\x7f") == "a?[2J????");
  CHECK(printable(std::string(300, 'x')) == std::string(200, 'x') + "...");
}

TEST_CASE("a certificate that nobody vouches for ends the request") {
  const EnvironmentGuard guard;
  const HubServer server(/*with_tls=*/true);
  HttpClient client;
  const HttpRequest request{.url = server.endpoint() + "/api/models/org/tiny/refs"};
  const HttpReply refused = client.send(request);
  CHECK(refused.status == 0);
  CHECK_THAT(refused.failure, Contains("certificate"));
  CHECK_FALSE(refused.may_pass);
  CHECK(server.requests().empty());

  const ScratchFolder scratch;
  const std::string store = scratch.write("store.pem", server.certificate());
  ::setenv("SSL_CERT_FILE", store.c_str(), 1);
  HttpClient trusting;
  const HttpReply answered = trusting.send(request);
  CHECK(answered.failure.empty());
  CHECK(answered.status == 200);
}

TEST_CASE("http_proxy gets the whole address, no_proxy goes past it") {
  const EnvironmentGuard guard;
  const HubServer proxy;
  ::setenv("http_proxy", proxy.endpoint().c_str(), 1);
  HttpClient client;
  const HttpReply through = client.send({.url = "http://hub.invalid/api/models/org/tiny/refs"});
  CHECK(through.status == 200);
  REQUIRE(proxy.requests().size() == 1);
  CHECK(proxy.requests()[0].has_whole_address);
  CHECK(proxy.requests()[0].host == "hub.invalid");

  const HubServer direct;
  ::setenv("no_proxy", "127.0.0.1", 1);
  HttpClient other;
  CHECK(other.send({.url = direct.endpoint() + "/api/models/org/tiny/refs"}).status == 200);
  CHECK(proxy.requests().size() == 1);
  CHECK_FALSE(direct.requests()[0].has_whole_address);
}

TEST_CASE("endless headers and endless error pages end") {
  const EnvironmentGuard guard;
  HubServer server;
  HubReply reply{.status = 200};
  for (int i = 0; i < 30; ++i) reply.headers.emplace_back("X-Fill", std::string(10'000, 'x'));
  server.hook = [&](const HubRequest&) { return reply; };
  HttpClient client;
  CHECK_THROWS_WITH(client.send({.url = server.endpoint() + "/a?key=secret"}),
                    server.endpoint() + "/a: the server's headers are too large");
  reply = {.status = 403, .body = std::string(2 << 20, 'x')};
  CHECK_THROWS_WITH(client.send({.url = server.endpoint() + "/a?key=secret"}),
                    server.endpoint() + "/a: HTTP 403 with an endless page");
}

TEST_CASE("a server that falls silent is left") {
  const EnvironmentGuard guard;
  HubServer server;
  server.hook = [](const HubRequest&) {
    return HubReply{.body = "0123456789", .cut_after = 5, .is_silent_then = true};
  };
  HttpClient client({.connect_s = 1, .stall_s = 0.2});
  std::string body;
  const HttpReply reply = client.send(
      {.url = server.endpoint() + "/a", .on_body = [&](std::string_view bytes) { body += bytes; }});
  CHECK(body == "01234");
  CHECK(reply.failure == "not a byte for 0.2 s");
  CHECK(reply.may_pass);
}

}  // namespace
}  // namespace vlm
