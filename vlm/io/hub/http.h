// One HTTP request at a time over libcurl, which only this pair of files sees.
//
//   HttpRequest ─► HttpClient::send ─► HttpReply, the body in pieces to the request's functions
//
// http and https only; certificates are verified against the system's store, or the file that
// SSL_CERT_FILE names. Proxies come from libcurl's variables (https_proxy, no_proxy, …). Redirects
// are not followed and nothing is tried again: which host may see which header is the caller's to
// decide (vlm/io/hub/hub_client).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

struct HttpReply {
  long status = 0;                             // 0: no answer came
  std::map<std::string, std::string> headers;  // names in lower case
  std::optional<double> retry_after_s;         // what the server asks to wait
  std::string failure;                         // why the reply isn't complete; empty: it is
  bool may_pass = false;    // after a failure: the same request may succeed later
  bool is_refused = false;  // after a failure: no address that may be connected to

  // The header's value, or "" without one.
  std::string header(const std::string& name) const;
};

struct HttpRequest {
  bool is_head = false;  // HEAD instead of GET
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  // on_head is called once with status and headers before the body, on_body with each piece of the
  // body. An exception that they throw ends the transfer and is thrown by send(). May be empty.
  std::function<void(const HttpReply&)> on_head;
  std::function<void(std::string_view)> on_body;
};

struct HttpTimeouts {
  long connect_s = 20;
  double stall_s = 30;  // without a single byte
};

// For addresses that strangers name.
struct HttpRules {
  // Asked with each address ("192.0.2.1", "2001:db8::1") that a name stands for, when its socket is
  // about to be opened; null: all may.
  std::function<bool(const std::string& address)> may_connect = {};
  bool uses_proxy = true;
  double total_s = 0;                   // for a whole request; 0: any
  std::vector<std::string> fixed = {};  // "name:port:address": what names stand for
};

class HttpClient {
 public:
  explicit HttpClient(HttpTimeouts timeouts = {}, HttpRules rules = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Connections are kept between calls. Throws Error when stop_requested(), and for headers of an
  // absurd size.
  HttpReply send(const HttpRequest& request);

 private:
  HttpTimeouts timeouts_;
  HttpRules rules_;
  void* curl_;
};

// "https://host:443" of an address, in lower case. Throws Error for what is no http(s) address, and
// for one with a user name in it.
std::string url_origin(const std::string& url);

// `location`, absolute or relative, as a whole address seen from `base`. Throws as url_origin.
std::string join_url(const std::string& base, const std::string& location);

// Every byte but letters, digits and "-._~" as %XX.
std::string percent_encode(std::string_view text);

// `text` from a foreign server in a message: at most 200 bytes, '?' for what isn't plain
// ASCII, so that no terminal takes it for commands.
std::string printable(std::string_view text);

}  // namespace vlm
