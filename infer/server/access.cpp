#include "infer/server/access.h"

#include <sys/stat.h>

#include <algorithm>

#include "data/media/media_ref.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/sha256.h"

namespace vlm::infer {
namespace {

std::string digest(std::string_view text) {
  Sha256 sha;
  sha.update(text);
  return sha.hex_digest();
}

// Both are digests, so their length says nothing.
bool is_same(const std::string& a, const std::string& b) {
  unsigned different = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    different |= static_cast<unsigned>(a[i]) ^ static_cast<unsigned>(b[i]);
  }
  return different == 0;
}

// "LocalHost:8080" → "localhost", "[::1]:80" → "[::1]".
std::string host_name(std::string_view host) {
  const auto colon = host.rfind(':');
  const bool has_port = colon != std::string_view::npos && host.find(']', colon) == host.npos;
  return ascii_lower(std::string(host.substr(0, has_port ? colon : host.size())));
}

std::string_view without_scheme(std::string_view origin) {
  const auto at = origin.find("://");
  return at == std::string_view::npos ? origin : origin.substr(at + 3);
}

// The headers of a page's request that may be sent.
std::string allowed_headers(std::string_view asked) {
  std::vector<std::string> allowed;
  while (!asked.empty()) {
    const auto comma = asked.find(',');
    const std::string name = ascii_lower(std::string(trimmed(asked.substr(0, comma))));
    const bool is_fine = name == "authorization" || name == "content-type" ||
                         name == "x-request-id" || name.starts_with("x-stainless-");
    if (is_fine) allowed.push_back(name);
    asked = comma == std::string_view::npos ? std::string_view() : asked.substr(comma + 1);
  }
  return join(allowed, ", ");
}

// Label Studio sends a backend's key as the password of HTTP's Basic.
std::optional<std::string> basic_password(std::string_view authorization) {
  constexpr std::string_view kBasic = "basic ";
  if (ascii_lower(std::string(authorization.substr(0, kBasic.size()))) != kBasic)
    return std::nullopt;
  try {
    const std::string pair = data::decode_base64(trimmed(authorization.substr(kBasic.size())));
    const auto colon = pair.find(':');
    if (colon != std::string::npos) return pair.substr(colon + 1);
  } catch (const Error&) {
  }
  return std::nullopt;
}

std::string given_key(const WebRequest& head) {
  constexpr std::string_view kBearer = "bearer ";
  const std::string_view given = trimmed(head.header("authorization"));
  if (const auto password = basic_password(given)) return *password;
  const bool is_bearer = ascii_lower(std::string(given.substr(0, kBearer.size()))) == kBearer;
  return std::string(is_bearer ? trimmed(given.substr(kBearer.size())) : head.header("x-api-key"));
}

ApiError forbidden(const std::string& what, std::string_view got, const std::string& hint) {
  return ApiError({.status = 403, .code = "forbidden_origin"},
                  {.what = what, .got = concat("'", shown(std::string(got)), "'"), .hint = hint});
}

}  // namespace

std::vector<std::string> load_api_keys(const std::string& path) {
  struct stat status = {};
  const std::string text = load_text(path, 1 << 20);
  const bool is_open = ::stat(path.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0;
  if (is_open) log_warning(concat(path, ": every user of this machine can read the keys"));
  std::vector<std::string> keys;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const auto line = trimmed(std::string_view(text).substr(at, end - at));
    if (!line.empty() && !line.starts_with('#')) keys.emplace_back(line);
    at = end + 1;
  }
  if (keys.empty()) throw Error({.what = "no key in the file", .where = path});
  return keys;
}

Access::Access(AccessOptions options) : origins_(std::move(options.cors_origins)) {
  for (const std::string& key : options.keys) digests_.push_back(digest(key));
  hosts_ = {"localhost", "127.0.0.1", "[::1]"};
  for (const std::string& host : options.allowed_hosts) hosts_.push_back(host_name(host));
}

bool Access::is_named_origin(const std::string& origin) const {
  return std::find(origins_.begin(), origins_.end(), origin) != origins_.end() ||
         std::find(origins_.begin(), origins_.end(), "*") != origins_.end();
}

std::optional<ApiError> Access::check_origin(const WebRequest& head) const {
  const std::string_view host = head.header("host");
  // What tells no host at all is HTTP/1.0 (a balancer that looks for health, say), and no browser.
  const bool is_known = !checks_host_ || !head.has("host") ||
                        std::find(hosts_.begin(), hosts_.end(), host_name(host)) != hosts_.end();
  if (!is_known) {
    return forbidden("a request for another host", host, "--allowed-host names it");
  }
  const std::string origin(head.header("origin"));
  const bool is_own =
      ascii_lower(std::string(without_scheme(origin))) == ascii_lower(std::string(host));
  if (origin.empty() || is_own || is_named_origin(origin)) return std::nullopt;
  return forbidden("a request of a web page from elsewhere", origin, "--cors-origin allows it");
}

std::optional<std::size_t> Access::key_of(const WebRequest& head) const {
  const std::string asked = digest(given_key(head));
  std::optional<std::size_t> found;
  for (std::size_t i = 0; i < digests_.size(); ++i) {
    if (is_same(digests_[i], asked)) found = i;
  }
  return found;
}

std::optional<ApiError> Access::check_key(const WebRequest& head) const {
  if (digests_.empty()) return std::nullopt;
  const bool is_given = !given_key(head).empty();
  if (key_of(head) && is_given) return std::nullopt;
  return ApiError({.status = 401, .code = "invalid_api_key"},
                  {.what = is_given ? "a wrong API key" : "no API key",
                   .wanted = "the header Authorization: Bearer KEY"});
}

std::optional<WebReply> Access::preflight(const WebRequest& head) const {
  const bool is_asked =
      head.method == "OPTIONS" && head.has("origin") && head.has("access-control-request-method");
  if (!is_asked) return std::nullopt;
  WebReply reply{.status = 204, .headers = cors_headers(head)};
  reply.headers.push_back({"Access-Control-Allow-Methods", "GET, POST"});
  reply.headers.push_back({"Access-Control-Allow-Headers",
                           allowed_headers(head.header("access-control-request-headers"))});
  reply.headers.push_back({"Access-Control-Max-Age", "600"});
  return reply;
}

std::vector<HttpHeader> Access::cors_headers(const WebRequest& head) const {
  const std::string origin(head.header("origin"));
  if (origin.empty() || !is_named_origin(origin)) return {};
  return {{"Access-Control-Allow-Origin", origin},
          {"Access-Control-Expose-Headers", "x-request-id, x-vlm-ignored, retry-after"},
          {"Vary", "Origin"}};
}

}  // namespace vlm::infer
