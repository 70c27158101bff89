#include "infer/server/http/http_head.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <map>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

const char* reason_of(int status) {
  static const std::map<int, const char*> kReasons = {{200, "OK"},
                                                      {204, "No Content"},
                                                      {304, "Not Modified"},
                                                      {400, "Bad Request"},
                                                      {401, "Unauthorized"},
                                                      {403, "Forbidden"},
                                                      {404, "Not Found"},
                                                      {405, "Method Not Allowed"},
                                                      {408, "Request Timeout"},
                                                      {411, "Length Required"},
                                                      {413, "Content Too Large"},
                                                      {414, "URI Too Long"},
                                                      {415, "Unsupported Media Type"},
                                                      {417, "Expectation Failed"},
                                                      {429, "Too Many Requests"},
                                                      {431, "Request Header Fields Too Large"},
                                                      {500, "Internal Server Error"},
                                                      {502, "Bad Gateway"},
                                                      {503, "Service Unavailable"}};
  const auto found = kReasons.find(status);
  return found == kReasons.end() ? "Status" : found->second;
}

// "Mon, 30 Nov 2026 17:00:00 GMT", in English whatever the locale.
std::string http_date() {
  constexpr std::array kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm time = {};
  ::gmtime_r(&now, &time);
  const auto two = [](int value) { return concat(value < 10 ? "0" : "", value); };
  return concat(kDays[static_cast<std::size_t>(time.tm_wday)], ", ", two(time.tm_mday), " ",
                kMonths[static_cast<std::size_t>(time.tm_mon)], " ", 1900 + time.tm_year, " ",
                two(time.tm_hour), ":", two(time.tm_min), ":", two(time.tm_sec), " GMT");
}

std::string one_line(std::string value) {
  std::erase_if(value, [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
  return value;
}

bool is_plain_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return is_letter(c) || is_digit(c) || c == '.' || c == '_' || c == '-';
  });
}

}  // namespace

std::string response_head(const WebReply& reply, const std::string& request_id,
                          const ResponseForm& form) {
  std::string head = concat("HTTP/1.1 ", reply.status, " ", reason_of(reply.status), "\r\n");
  const auto add = [&](const std::string& name, const std::string& value) {
    head += concat(name, ": ", one_line(value), "\r\n");
  };
  add("Date", http_date());
  const bool has_body = reply.status != 204 && reply.status != 304;
  if (has_body) add("Content-Type", reply.content_type);
  if (form.is_stream) {
    if (!form.is_http_1_0) add("Transfer-Encoding", "chunked");
  } else if (has_body) {
    add("Content-Length", concat(reply.body.size()));
  }
  for (const HttpHeader& header : reply.headers) add(header.name, header.value);
  add("X-Request-Id", request_id);
  add("X-Content-Type-Options", "nosniff");
  if (!form.keeps_connection) {
    add("Connection", "close");
  } else if (form.is_http_1_0) {
    add("Connection", "keep-alive");
  }
  return head + "\r\n";
}

std::string chunk_of(std::string_view piece) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string size;
  for (std::size_t rest = piece.size(); rest > 0; rest >>= 4) size += kDigits[rest & 15];
  std::reverse(size.begin(), size.end());
  std::string chunk = size + "\r\n";
  chunk += piece;
  chunk += "\r\n";
  return chunk;
}

std::string random_hex(std::size_t digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string bytes(digits, '\0');
  // 256 bytes and fewer always come whole, once the system's source is ready.
  while (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
  }
  for (char& byte : bytes) byte = kDigits[static_cast<unsigned char>(byte) & 15];
  return bytes;
}

std::string request_id(std::string_view wanted) {
  return is_plain_id(wanted) ? std::string(wanted) : "req-" + random_hex(32);
}

}  // namespace vlm::infer
