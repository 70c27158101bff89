#include "vlm/io/hub/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <utility>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostHeaderBytes = 256 << 10;
constexpr std::size_t kMostPageBytes = 1 << 20;

// For messages: the query of a redirect's address is a key to the file.
std::string without_query(const std::string& url) {
  return url.substr(0, url.find('?'));
}

// What the C functions below share with send().
struct Transfer {
  const HttpRequest& request;
  CURL* curl;
  double stall_s;
  const HttpRules& rules;
  HttpReply reply = {};
  std::size_t header_bytes = 0, discarded_bytes = 0;
  std::exception_ptr thrown = nullptr;
  curl_off_t seen_bytes = 0;
  Clock::time_point seen_at = Clock::now();
  bool is_stalled = false, is_refused = false;

  void read_header(std::string_view line) {
    header_bytes += line.size();
    if (header_bytes > kMostHeaderBytes) {
      throw Error(
          {.what = "the server's headers are too large", .where = without_query(request.url)});
    }
    if (line.starts_with("HTTP/")) reply.headers.clear();  // of an interim answer
    const std::string_view text = trimmed(line);
    if (text.empty()) return end_headers();
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return;
    reply.headers[ascii_lower(std::string(text.substr(0, colon)))] =
        trimmed(text.substr(colon + 1));
  }

  void end_headers() {
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply.status);
    if (reply.status >= 200 && request.on_head) request.on_head(reply);
  }

  void read_body(std::string_view bytes) {
    // The page that comes with an error or a redirect: nobody reads it, so it may not go on
    // forever.
    if (reply.status >= 300 && (discarded_bytes += bytes.size()) > kMostPageBytes) {
      throw Error({.what = concat("HTTP ", reply.status, " with an endless page"),
                   .where = without_query(request.url)});
    }
    if (request.on_body) request.on_body(bytes);
  }
};

// No exception may pass through libcurl's frames: it is kept and thrown again by send().
template <void (Transfer::*read)(std::string_view)>
std::size_t receive(char* data, std::size_t size, std::size_t count, void* pointer) {
  auto& transfer = *static_cast<Transfer*>(pointer);
  try {
    (transfer.*read)(std::string_view(data, size * count));
    return size * count;
  } catch (...) {
    transfer.thrown = std::current_exception();
    return CURL_WRITEFUNC_ERROR;
  }
}

// Called for every piece, and once a second in between. (libcurl's own limit of speed is an average
// over seconds, and late.)
int on_progress(void* pointer, curl_off_t, curl_off_t bytes, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(pointer);
  const auto now = Clock::now();
  if (bytes != transfer.seen_bytes) {
    transfer.seen_bytes = bytes;
    transfer.seen_at = now;
  }
  const double silent_s = std::chrono::duration<double>(now - transfer.seen_at).count();
  transfer.is_stalled = silent_s > transfer.stall_s;
  return stop_requested() || transfer.is_stalled ? 1 : 0;
}

std::string address_text(const curl_sockaddr& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* bytes = nullptr;
  if (address.family == AF_INET) {
    bytes = &reinterpret_cast<const sockaddr_in*>(&address.addr)->sin_addr;
  } else if (address.family == AF_INET6) {
    bytes = &reinterpret_cast<const sockaddr_in6*>(&address.addr)->sin6_addr;
  }
  const char* made = bytes ? ::inet_ntop(address.family, bytes, text.data(), text.size()) : nullptr;
  return made ? made : "";
}

// The last moment before a connection: whatever the name stood for before, this is the address.
curl_socket_t open_socket(void* pointer, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(pointer);
  try {
    if (!transfer.rules.may_connect(address_text(*address))) {
      transfer.is_refused = true;
      return CURL_SOCKET_BAD;
    }
  } catch (...) {
    transfer.thrown = std::current_exception();
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

bool may_pass(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return false;
  }
}

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using HeaderList = std::unique_ptr<curl_slist, FreeList>;

HeaderList make_list(const std::vector<std::string>& texts) {
  curl_slist* list = nullptr;
  for (const std::string& text : texts) list = curl_slist_append(list, text.c_str());
  return HeaderList(list);
}

void set_rules(CURL* curl, Transfer& transfer, curl_slist* fixed) {
  const HttpRules& rules = transfer.rules;
  if (rules.may_connect) {
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, &transfer);
  }
  if (!rules.uses_proxy) {
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
  }
  if (rules.total_s > 0) {
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, std::lround(std::ceil(rules.total_s * 1000)));
  }
  if (fixed) curl_easy_setopt(curl, CURLOPT_RESOLVE, fixed);
}

// SIGPIPE is left to libcurl, which holds it back while it works (CURLOPT_NOSIGNAL is not set).
void set_options(CURL* curl, const HttpRequest& request, const HttpTimeouts& timeouts) {
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_NOBODY, request.is_head ? 1L : 0L);
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
  if (const char* file = std::getenv("SSL_CERT_FILE"); file && *file) {
    curl_easy_setopt(curl, CURLOPT_CAINFO, file);
  }
  // The request's headers, a token among them, are for the server and not for a proxy.
  curl_easy_setopt(curl, CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));
  curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "vlm");
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, timeouts.connect_s);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
}

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};

// `location` read by libcurl's own parser, so that what is checked is what is connected to.
std::unique_ptr<CURLU, FreeUrl> parse_url(const std::string& base, const std::string& location) {
  std::unique_ptr<CURLU, FreeUrl> url(curl_url());
  const bool is_safe = location.find('\0') == std::string::npos;
  CURLUcode code = is_safe ? CURLUE_OK : CURLUE_MALFORMED_INPUT;
  if (!base.empty())
    code = curl_url_set(url.get(), CURLUPART_URL, base.c_str(), CURLU_DISALLOW_USER);
  if (code == CURLUE_OK && is_safe) {
    code = curl_url_set(url.get(), CURLUPART_URL, location.c_str(), CURLU_DISALLOW_USER);
  }
  if (code == CURLUE_OK && is_safe) return url;
  throw Error({.what = "not an address that is followed",
               .where = printable(location),
               .got = curl_url_strerror(code)});
}

std::string url_part(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK) return "";
  const std::string value = text;
  curl_free(text);
  return value;
}

void check_scheme(CURLU* url, const std::string& address) {
  const std::string scheme = ascii_lower(url_part(url, CURLUPART_SCHEME));
  if (scheme == "http" || scheme == "https") return;
  throw Error({.what = "not an address that is followed",
               .where = printable(address),
               .got = printable(scheme),
               .wanted = "http or https"});
}

}  // namespace

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

HttpClient::HttpClient(HttpTimeouts timeouts, HttpRules rules)
    : timeouts_(timeouts), rules_(std::move(rules)) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  curl_ = started == CURLE_OK ? curl_easy_init() : nullptr;
  if (!curl_) throw Error({.what = "can't start libcurl"});
}

HttpClient::~HttpClient() {
  curl_easy_cleanup(curl_);
}

HttpReply HttpClient::send(const HttpRequest& request) {
  CURL* curl = curl_;
  Transfer transfer{
      .request = request, .curl = curl, .stall_s = timeouts_.stall_s, .rules = rules_};
  std::array<char, CURL_ERROR_SIZE> reason{};
  const HeaderList headers = make_list(request.headers), fixed = make_list(rules_.fixed);
  curl_easy_reset(curl);
  set_options(curl, request, timeouts_);
  set_rules(curl, transfer, fixed.get());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason.data());
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, receive<&Transfer::read_header>);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive<&Transfer::read_body>);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  const CURLcode code = curl_easy_perform(curl);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  if (stop_requested()) throw Error({.what = "stopped", .where = without_query(request.url)});
  HttpReply& reply = transfer.reply;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply.status);
  if (curl_off_t wait = 0;
      curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait) == CURLE_OK && wait > 0) {
    reply.retry_after_s = static_cast<double>(wait);
  }
  if (code != CURLE_OK) {
    reply.failure = printable(reason[0] ? reason.data() : curl_easy_strerror(code));
    reply.may_pass = may_pass(code);
    reply.is_refused = transfer.is_refused;
  }
  if (transfer.is_stalled) {
    reply.failure = concat("not a byte for ", timeouts_.stall_s, " s");
    reply.may_pass = true;
  }
  return std::move(reply);
}

std::string url_origin(const std::string& url) {
  const auto parsed = parse_url("", url);
  check_scheme(parsed.get(), url);
  return ascii_lower(concat(url_part(parsed.get(), CURLUPART_SCHEME), "://",
                            url_part(parsed.get(), CURLUPART_HOST), ":",
                            url_part(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT)));
}

std::string join_url(const std::string& base, const std::string& location) {
  const auto parsed = parse_url(base, location);
  check_scheme(parsed.get(), location);
  return url_part(parsed.get(), CURLUPART_URL);
}

std::string percent_encode(std::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain =
        is_letter(c) || is_digit(c) || std::string_view("-._~").find(c) != std::string_view::npos;
    if (is_plain) {
      encoded += c;
    } else {
      encoded += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return encoded;
}

std::string printable(std::string_view text) {
  std::string safe(text.substr(0, 200));
  for (char& c : safe) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return text.size() > safe.size() ? safe + "..." : safe;
}

}  // namespace vlm
