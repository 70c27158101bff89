// Who may ask: keys, names of the host, origins of web pages.
//
//   head of a request ─► check ─► nothing, or 401, 403
//
// Keys come from a file or a variable, never from the command line, which other users can see. They
// are compared by their digests, in the same time whatever differs. On a loopback address the Host
// header must be a name of this machine, so that a foreign name that was bound to 127.0.0.1 (DNS
// rebinding) reaches nothing. A web page's request (it has an Origin) must come from this server or
// from an origin that was named.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "infer/server/api/api_error.h"
#include "infer/server/http/http_message.h"

namespace vlm::infer {

struct AccessOptions {
  std::vector<std::string> keys;           // none: nobody is asked for one
  std::vector<std::string> allowed_hosts;  // beside localhost, 127.0.0.1 and [::1]
  std::vector<std::string> cors_origins;   // "https://a.example", or "*" for any
};

// One key a line; empty lines and those that begin with # don't count. Throws Error for a file
// without keys; warns of one that everybody can read.
std::vector<std::string> load_api_keys(const std::string& path);

class Access {
 public:
  explicit Access(AccessOptions options);

  // Whether Host headers are looked at. Called before the first request.
  void set_checks_host(bool checks_host) { checks_host_ = checks_host; }
  bool has_keys() const { return !digests_.empty(); }

  std::optional<ApiError> check_origin(const WebRequest& head) const;
  std::optional<ApiError> check_key(const WebRequest& head) const;
  // Which of the keys it has, in their order. Of a request that passed check_key.
  std::optional<std::size_t> key_of(const WebRequest& head) const;
  // The answer to a browser that asks first; nothing for other requests.
  std::optional<WebReply> preflight(const WebRequest& head) const;
  // What lets the page that asks read the answer.
  std::vector<HttpHeader> cors_headers(const WebRequest& head) const;

 private:
  bool is_named_origin(const std::string& origin) const;

  std::vector<std::string> digests_;  // of the keys
  std::vector<std::string> hosts_, origins_;
  bool checks_host_ = true;
};

}  // namespace vlm::infer
