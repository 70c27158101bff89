// Keys, names of the host, and web pages from elsewhere.
#include "infer/server/access.h"

#include <sys/stat.h>

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/thrown.h"

namespace vlm::infer {
namespace {

WebRequest request_with(std::vector<HttpHeader> headers, const std::string& method = "POST") {
  return {.method = method, .path = "/v1/chat/completions", .headers = std::move(headers)};
}

std::string text_of(const std::optional<ApiError>& error) {
  return error ? std::to_string(error->status()) + " " + error->code() + " " + error->what() : "";
}

std::string header_of(const std::vector<HttpHeader>& headers, const std::string& name) {
  for (const HttpHeader& header : headers) {
    if (header.name == name) return header.value;
  }
  return "none";
}

TEST_CASE("a key is asked for, in either header, and none is accepted in part") {
  const Access access({.keys = {"first-key", "second-key"}});
  const auto key = [&](const std::string& name, const std::string& value) {
    return text_of(access.check_key(request_with({{name, value}})));
  };
  CHECK(access.has_keys());
  CHECK(key("authorization", "Bearer first-key") == "");
  CHECK(key("authorization", "bearer  second-key ") == "");
  CHECK(key("x-api-key", "first-key") == "");
  const std::string wrong =
      "401 invalid_api_key a wrong API key: wanted the header Authorization: Bearer KEY";
  for (const char* value : {"Bearer first-ke", "Bearer first-key2", "Bearer FIRST-KEY",
                            "Bearer first-keysecond-key", "Bearer x"}) {
    CHECK(key("authorization", value) == wrong);
  }
  const std::string missing =
      "401 invalid_api_key no API key: wanted the header Authorization: Bearer KEY";
  CHECK(key("authorization", "Bearer ") == missing);
  CHECK(key("authorization", "Basic Zmlyc3Qta2V5") == missing);
  CHECK(text_of(access.check_key(request_with({}))) == missing);
  CHECK(text_of(Access({}).check_key(request_with({}))) == "");
}

TEST_CASE("files of keys") {
  const ScratchFolder scratch;
  const std::string path = (scratch.path() / "keys").string();
  std::ofstream(path) << "# team a\n  key-a \n\nkey-b\r\n";
  ::chmod(path.c_str(), 0600);
  CHECK(load_api_keys(path) == std::vector<std::string>{"key-a", "key-b"});
  std::ofstream(path) << "# nothing\n";
  CHECK(thrown_by([&] { load_api_keys(path); }) == path + ": no key in the file");
}

TEST_CASE("on loopback, names of other hosts are refused") {
  Access access({.allowed_hosts = {"Box.Local"}});
  const auto host = [&](const std::string& name) {
    return text_of(access.check_origin(request_with({{"host", name}})));
  };
  for (const char* name : {"localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]",
                           "[::1]:8080", "box.local", "box.local:80"}) {
    CHECK(host(name) == "");
  }
  for (const char* name :
       {"evil.example", "localhost.evil.example:8080", "127.0.0.2", "", "0.0.0.0:8080", "[::2]"}) {
    INFO(name);
    CHECK(host(name) == std::string("403 forbidden_origin a request for another host: got '") +
                            name + "' (--allowed-host names it)");
  }
  CHECK(text_of(access.check_origin(request_with({}))) == "");
  access.set_checks_host(false);
  CHECK(host("evil.example") == "");
}

TEST_CASE("pages of other origins are refused, named ones answered") {
  const Access access({.cors_origins = {"https://a.example"}});
  const auto origin = [&](const std::string& value) {
    return text_of(
        access.check_origin(request_with({{"host", "localhost:8080"}, {"origin", value}})));
  };
  CHECK(origin("http://localhost:8080") == "");
  CHECK(origin("https://a.example") == "");
  for (const char* value : {"https://b.example", "https://a.example.b", "http://a.example", "null",
                            "http://localhost:9090", "https://a.example:444"}) {
    INFO(value);
    CHECK(origin(value).starts_with(
        "403 forbidden_origin a request of a web page from elsewhere: got '"));
  }
  const auto headers = access.cors_headers(request_with({{"origin", "https://a.example"}}));
  CHECK(header_of(headers, "Access-Control-Allow-Origin") == "https://a.example");
  CHECK(header_of(headers, "Access-Control-Allow-Credentials") == "none");
  CHECK(header_of(headers, "Vary") == "Origin");
  CHECK(access.cors_headers(request_with({{"origin", "https://b.example"}})).empty());
  CHECK(access.cors_headers(request_with({})).empty());
}

TEST_CASE("preflights name the headers that may be sent") {
  const Access access({.cors_origins = {"*"}});
  const auto reply = access.preflight(
      request_with({{"origin", "https://x.example"},
                    {"access-control-request-method", "POST"},
                    {"access-control-request-headers",
                     "Authorization, content-type,x-stainless-os, x-evil, cookie, X-Request-Id"}},
                   "OPTIONS"));
  REQUIRE(reply);
  CHECK(reply->status == 204);
  CHECK(header_of(reply->headers, "Access-Control-Allow-Headers") ==
        "authorization, content-type, x-stainless-os, x-request-id");
  CHECK(header_of(reply->headers, "Access-Control-Allow-Methods") == "GET, POST");
  CHECK(header_of(reply->headers, "Access-Control-Allow-Origin") == "https://x.example");
  CHECK_FALSE(access.preflight(request_with({{"origin", "https://x.example"}}, "OPTIONS")));
  CHECK_FALSE(access.preflight(request_with({}, "POST")));
}

}  // namespace
}  // namespace vlm::infer
