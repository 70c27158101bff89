// Media of other hosts: which are fetched, and that nothing of this machine's network is.
#include "infer/server/fetch/media_fetcher.h"

#include <nlohmann/json.hpp>

#include "infer/server/fetch/public_address.h"
#include "tests/server/http_test_server.h"
#include "tests/server/served.h"

namespace vlm::infer {
namespace {

// A host of pictures. "/to?URL" sends on to there.
class PictureHost : public TestHandler {
 public:
  void handle(WebRequest request, std::shared_ptr<Exchange> exchange) override {
    ++asked;
    if (request.path == "/wait") {
      const std::lock_guard lock(mutex);
      return exchanges.push_back(exchange);
    }
    if (request.path == "/to") {
      return exchange->reply(
          {.status = 302, .body = "moved", .headers = {{"Location", request.query}}});
    }
    if (request.path == "/missing") return exchange->reply({.status = 404, .body = "secret"});
    if (request.path == "/broken") return exchange->reply({.status = 503, .body = "secret"});
    if (request.path == "/large") return exchange->reply({.body = std::string(3000, 'x')});
    exchange->reply({.body = read_file(kShapes / "shape_049.png"), .content_type = "image/png"});
  }
  std::atomic<int> asked{0};
};

struct PictureServer {
  PictureServer() : server(quick_options(), host) { server.start(); }
  std::string at(const std::string& path, const std::string& name = "127.0.0.1") const {
    return concat("http://", name, ":", server.port(), path);
  }
  PictureHost host;
  HttpServer server;
};

// "ok N bytes", or "kind: text".
std::string fetch(const FetchOptions& options, const std::string& url) {
  try {
    return concat("ok ", MediaFetcher(options).fetch(url).size());
  } catch (const FetchError& error) {
    const char* kinds[] = {"not allowed", "bad", "may pass"};
    return concat(kinds[static_cast<int>(error.kind())], ": ", error.what());
  }
}

TEST_CASE("addresses of the public network, and all others") {
  for (const char* open : {"8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "192.0.1.1",
                           "223.255.255.255", "2606:2800:220:1::1", "2a00:1450::1"}) {
    INFO(open);
    CHECK(is_public_address(open));
  }
  for (const char* closed : {"127.0.0.1",
                             "127.8.8.8",
                             "0.0.0.0",
                             "10.1.2.3",
                             "172.16.0.1",
                             "172.31.255.255",
                             "192.168.1.1",
                             "169.254.169.254",
                             "100.64.0.1",
                             "100.127.255.255",
                             "224.0.0.1",
                             "255.255.255.255",
                             "240.0.0.1",
                             "198.18.0.1",
                             "192.0.2.1",
                             "::",
                             "::1",
                             "::ffff:8.8.8.8",
                             "::ffff:127.0.0.1",
                             "64:ff9b::808:808",
                             "64:ff9b:1::1",
                             "2002:7f00:1::",
                             "2001::1",
                             "2001:db8::1",
                             "fc00::1",
                             "fd12::1",
                             "fe80::1",
                             "ff02::1",
                             "100::1",
                             "",
                             "localhost",
                             "127.1",
                             "0x7f000001"}) {
    INFO(closed);
    CHECK_FALSE(is_public_address(closed));
  }
}

TEST_CASE("pictures come from hosts that are named, and from no others") {
  const PictureServer pictures;
  const FetchOptions options{.hosts = {pictures.at("")}};
  const auto size = read_file(kShapes / "shape_049.png").size();
  CHECK(fetch(options, pictures.at("/a.png")) == concat("ok ", size));
  CHECK(fetch(options, pictures.at("/to?/a.png")) == concat("ok ", size));
  CHECK_THAT(fetch(options, concat("http://127.0.0.1:", pictures.server.port() + 1, "/")),
             Contains("not allowed: nothing is fetched from this host: got http://127.0.0.1:"));
  CHECK_THAT(fetch(options, pictures.at("/a.png", "localhost")), Contains("not allowed: "));
  CHECK_THAT(fetch(options, "https://127.0.0.1/"), Contains("not allowed: "));
  CHECK_THAT(fetch(options, pictures.at("/a.png", "user:word@127.0.0.1")), Contains("bad: "));
  CHECK_THAT(fetch(options, "http://"), Contains("bad: not an address that can be fetched"));
  CHECK(fetch(options, pictures.at("/missing")) ==
        "bad: the host doesn't have the medium: got HTTP 404");
  CHECK(fetch(options, pictures.at("/broken")) ==
        "may pass: the host of the medium has failed: got HTTP 503");
  CHECK_THROWS_WITH(MediaFetcher({.hosts = {"http://a/b"}}),
                    Contains("--allowed-media-domains: not a host: got http://a/b"));
  CHECK_THROWS_WITH(MediaFetcher({.hosts = {"ftp://a"}}), Contains("not a host"));
}

TEST_CASE("redirects are judged like the first address, and are few") {
  const PictureServer pictures, other;
  const FetchOptions options{.hosts = {pictures.at(""), "http://inside.example:1"},
                             .fixed = {"inside.example:1:127.0.0.1"}};
  for (const std::string& target :
       {other.at("/a.png"), pictures.at("/a.png", "localhost"), std::string("http://[::1]/"),
        std::string("http://inside.example:1/a.png")}) {
    INFO(target);
    CHECK_THAT(fetch(options, pictures.at("/to?" + target)), Contains("not allowed: "));
  }
  CHECK(other.host.asked == 0);
  CHECK_THAT(fetch(options, pictures.at("/to?file:///etc/passwd")), Contains("bad: "));
  CHECK(fetch(options, pictures.at("/to?/to?/to?/to?/a.png")).find("bad: ") == 0);
}

TEST_CASE("a name that stands for this machine, or for its network, is not connected to") {
  const PictureServer pictures;
  const int port = pictures.server.port();
  // The name is allowed. What it resolves to is not, whatever it resolved to before.
  for (const std::string address : {"127.0.0.1", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]",
                                    "10.0.0.1", "169.254.169.254", "127.0.0.1,[::1]"}) {
    INFO(address);
    const FetchOptions options{.hosts = {concat("http://pictures.example:", port)},
                               .fixed = {concat("pictures.example:", port, ":", address)}};
    CHECK(fetch(options, pictures.at("/a.png", "pictures.example")) ==
          "not allowed: the host is not on the public network (--allowed-media-domains can name "
          "the address itself)");
  }
  CHECK(pictures.host.asked == 0);
}

TEST_CASE("what is fetched has a size and a time") {
  const PictureServer pictures;
  const FetchOptions options{.hosts = {pictures.at("")}, .max_bytes = 2000, .time_s = 0.5};
  CHECK(fetch(options, pictures.at("/large")) ==
        "bad: the file is too large: wanted at most 2000 bytes");
  const auto begin = std::chrono::steady_clock::now();
  CHECK(fetch(options, pictures.at("/wait")) ==
        "may pass: the host of the medium has failed: got no answer");
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
}

TEST_CASE("a served picture may be an address of an allowed host") {
  const PictureServer pictures;
  const auto body = [&](const std::string& url) {
    Json asked = shape_body("what shape is in the image?");
    asked["messages"][0]["content"][0]["image_url"]["url"] = url;
    return asked;
  };
  ServedOptions options;
  options.service.limits.fetcher =
      std::make_shared<const MediaFetcher>(FetchOptions{.hosts = {pictures.at("")}});
  const Served served(options);
  CHECK(content_of(served.ask(body(pictures.at("/a.png")))) ==
        content_of(served.ask(shape_body("what shape is in the image?"))));
  const std::string param = " messages[0].content[0].image_url.url";
  CHECK(served.refusal(body("https://elsewhere.example/a.png")) ==
        "400 invalid_request_error media_not_allowed" + param);
  CHECK(served.refusal(body(pictures.at("/missing"))) ==
        "400 invalid_request_error invalid_image" + param);
  const std::string failed = served.post(body(pictures.at("/broken")));
  CHECK(Served::fault_of(failed) == "502 server_error media_fetch_failed" + param);
  CHECK(failed.find("secret") == std::string::npos);
  CHECK(served.metric("vlm_requests_rejected_total{reason=\"media\"}") == 3);
  const Served without;
  CHECK(without.refusal(body(pictures.at("/a.png"))) ==
        "400 invalid_request_error media_not_allowed" + param);
}

}  // namespace
}  // namespace vlm::infer
