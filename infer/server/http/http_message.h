// An HTTP request and what is answered to it, without sockets.
//
//   bytes ─► HttpConnection ─► WebRequest ─► HttpHandler ─► WebReply, or a stream of pieces ─►
//   bytes
//
// Names of headers are in small letters. A path is as it was sent: percent signs are not decoded.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace vlm::infer {

struct HttpHeader {
  std::string name, value;
};

struct WebRequest {
  std::string method, path, query;  // "POST", "/v1/models", "a=b"
  std::vector<HttpHeader> headers;
  std::string body;
  std::string peer;  // the other side's address; empty on a Unix socket
  std::string id;    // the client's x-request-id if it is a plain word, else a new one

  // "" when it is missing; the first of several.
  std::string_view header(std::string_view name) const {
    const auto found = std::find_if(headers.begin(), headers.end(),
                                    [&](const HttpHeader& one) { return one.name == name; });
    return found == headers.end() ? std::string_view{} : std::string_view(found->value);
  }
  bool has(std::string_view name) const {
    return std::any_of(headers.begin(), headers.end(),
                       [&](const HttpHeader& one) { return one.name == name; });
  }
};

struct WebReply {
  int status = 200;
  std::string body = {};
  std::string content_type = "application/json";
  std::vector<HttpHeader> headers = {};  // beside length, type, connection and request id
};

}  // namespace vlm::infer
