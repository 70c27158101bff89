#include "infer/server/fetch/media_fetcher.h"

#include <chrono>

#include "infer/server/fetch/public_address.h"
#include "vlm/core/concat.h"
#include "vlm/io/hub/http.h"

namespace vlm::infer {
namespace {

constexpr int kMostRedirects = 3;

using FetchKind = FetchError::Kind;

// "https://[2001:db8::1]:443" → "2001:db8::1"
std::string host_of(const std::string& origin) {
  const auto begin = origin.find("://") + 3;
  std::string host = origin.substr(begin, origin.rfind(':') - begin);
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  return host;
}

FetchError too_large(std::int64_t most) {
  return {FetchKind::kBad,
          {.what = "the file is too large", .wanted = concat("at most ", most, " bytes")}};
}

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

}  // namespace

struct MediaFetcher::Hop {
  std::string body, next;  // one of them
};

MediaFetcher::MediaFetcher(FetchOptions options) : options_(std::move(options)) {
  for (const std::string& entry : options_.hosts) {
    const bool has_scheme = entry.find("://") != std::string::npos;
    const std::string url = has_scheme ? entry : concat("https://", entry);
    std::string origin;
    try {
      origin = url_origin(url);
    } catch (const Error&) {
    }
    const bool has_path = url.find('/', url.find("://") + 3) != std::string::npos;
    if (origin.empty() || has_path || host_of(origin).empty()) {
      throw Error({.what = "not a host",
                   .where = "--allowed-media-domains",
                   .got = printable(entry),
                   .wanted = "a name such as pictures.example, or http://name:port"});
    }
    origins_.insert(origin);
  }
}

void MediaFetcher::check_host(const std::string& url) const {
  std::string origin;
  try {
    origin = url_origin(url);
  } catch (const Error&) {
    throw FetchError(FetchKind::kBad, {.what = "not an address that can be fetched",
                                       .wanted = "http(s)://host/path without a user name"});
  }
  if (origins_.contains(origin)) return;
  throw FetchError(FetchKind::kNotAllowed,
                   {.what = "nothing is fetched from this host",
                    .got = printable(origin),
                    .hint = "the server's --allowed-media-domains names hosts; "
                            "or send the file itself as a data URI"});
}

MediaFetcher::Hop MediaFetcher::fetch_once(const std::string& url, double time_s) const {
  // A host that was named by its address is that address, and no other name stands for it.
  const std::string host = host_of(url_origin(url));
  HttpClient client(
      {.connect_s = 5, .stall_s = time_s},
      {.may_connect =
           [&host](const std::string& to) { return is_public_address(to) || to == host; },
       .uses_proxy = false,
       .total_s = time_s,
       .fixed = options_.fixed});
  Hop hop;
  long status = 0;
  const HttpReply reply =
      client.send({.url = url,
                   .headers = options_.headers,
                   .on_head = [&status](const HttpReply& head) { status = head.status; },
                   .on_body =
                       [&](std::string_view bytes) {
                         if (status != 200) return;
                         hop.body += bytes;
                         if (std::ssize(hop.body) > options_.max_bytes)
                           throw too_large(options_.max_bytes);
                       }});
  if (reply.is_refused) {
    throw FetchError(FetchKind::kNotAllowed,
                     {.what = "the host is not on the public network",
                      .hint = "--allowed-media-domains can name the address itself"});
  }
  if (!reply.failure.empty() || reply.status >= 500 || reply.status == 429 || reply.status == 408) {
    throw FetchError(FetchKind::kMayPass,
                     {.what = "the host of the medium has failed",
                      .got = reply.failure.empty() ? concat("HTTP ", reply.status) : "no answer"});
  }
  if (is_redirect(reply.status)) {
    try {
      hop.next = join_url(url, reply.header("location"));
    } catch (const Error&) {
      throw FetchError(FetchKind::kBad, {.what = "a redirect to nowhere"});
    }
  } else if (reply.status != 200) {
    throw FetchError(FetchKind::kBad, {.what = "the host doesn't have the medium",
                                       .got = concat("HTTP ", reply.status)});
  }
  return hop;
}

std::string MediaFetcher::fetch(const std::string& url) const {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  std::string at = url;
  for (int hops = 0; hops <= kMostRedirects; ++hops) {
    check_host(at);
    const double passed = std::chrono::duration<double>(Clock::now() - begin).count();
    const double left = options_.time_s - passed;
    if (left <= 0) {
      throw FetchError(FetchKind::kMayPass,
                       {.what = "the host of the medium has failed", .got = "no answer in time"});
    }
    Hop hop = fetch_once(at, left);
    if (hop.next.empty()) return std::move(hop.body);
    at = std::move(hop.next);
  }
  throw FetchError(FetchKind::kBad,
                   {.what = "too many redirects", .wanted = concat("at most ", kMostRedirects)});
}

}  // namespace vlm::infer
