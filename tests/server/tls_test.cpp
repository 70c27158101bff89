// A server with a certificate: https alone, TLS 1.2 and up.
#include <cstdlib>

#include "tests/server/http_test_server.h"
#include "tests/support/catch.h"
#include "tests/support/hub/tls_socket.h"
#include "tests/support/logged_lines.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/durable_file.h"
#include "vlm/io/hub/http.h"

namespace vlm::infer {
namespace {

constexpr int kTls11 = 0x0302, kTls12 = 0x0303, kTls13 = 0x0304;

struct Certificates {
  Certificates() {
    std::ofstream(cert()) << identity.certificate();
    std::ofstream(key()) << identity.key();
  }
  std::string cert() const { return (scratch.path() / "cert.pem").string(); }
  std::string key() const { return (scratch.path() / "key.pem").string(); }

  TlsIdentity identity;
  ScratchFolder scratch;
};

HttpOptions options_with(const Certificates& files) {
  HttpOptions options = quick_options();
  options.tls_cert = files.cert();
  options.tls_key = files.key();
  options.header_time = milliseconds(500);
  return options;
}

TEST_CASE("a server with a certificate answers over TLS") {
  const Certificates files;
  TestServer served(options_with(files));
  ::setenv("SSL_CERT_FILE", files.cert().c_str(), 1);
  HttpClient client;
  std::string body;
  const auto get = [&](const std::string& path) {
    body.clear();
    return client.send({.url = concat("https://localhost:", served.server.port(), path),
                        .on_body = [&](std::string_view bytes) { body += bytes; }});
  };
  for (int i = 0; i < 3; ++i) {
    const HttpReply reply = get(concat("/hello", i));
    INFO(reply.failure);
    CHECK(reply.status == 200);
    CHECK(body == concat("GET /hello", i, "  0 "));
  }
  // Pieces of a stream, while a read is pending.
  std::thread writer([&] {
    const auto exchange = served.handler.wait_for_exchange(4);
    for (int i = 0; i < 200; ++i) exchange->send(std::string(1000, 'x'));
    exchange->end_stream();
  });
  CHECK(get("/stream").status == 200);
  writer.join();
  CHECK(body == std::string(200'000, 'x'));
  ::unsetenv("SSL_CERT_FILE");
  CHECK(served.server.address() == concat("https://127.0.0.1:", served.server.port()));
  CHECK(shakes_hands(served.server.port(), kTls13));
  CHECK(shakes_hands(served.server.port(), kTls12));
  CHECK_FALSE(shakes_hands(served.server.port(), kTls11));
}

TEST_CASE("what is no TLS, and a client that never shakes hands, is left") {
  const Certificates files;
  TestServer served(options_with(files));
  RawClient plain(served.server.port()), silent(served.server.port());
  plain.send(get_request("/hello"));
  CHECK(plain.read_all(std::chrono::seconds(5)).find("HTTP/") == std::string::npos);
  CHECK(silent.read_all(std::chrono::seconds(5)).empty());
  for (int i = 0; i < 500 && served.server.stats().connections > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  CHECK(served.server.stats().connections == 0);
  CHECK(served.handler.requests.empty());
}

TEST_CASE("certificates that can't be used are told before anything is served") {
  const Certificates files, others;
  HttpOptions options = options_with(files);
  options.tls_key = others.key();
  CHECK_THROWS_WITH(TestServer(options), Contains("--tls-key: can't be used: got "));
  options.tls_key = "/nowhere";
  CHECK_THROWS_WITH(TestServer(options), Contains("--tls-key: no such file: got /nowhere"));
  options.tls_cert = files.key();
  CHECK_THROWS_WITH(TestServer(options), Contains("--tls-cert: can't be used: got "));
}

}  // namespace
}  // namespace vlm::infer
