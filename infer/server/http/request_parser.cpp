#include "infer/server/http/request_parser.h"

#include <utility>  // std::exchange, which Asio 1.18 uses without including it

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

#include "infer/server/http/http_head.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::empty_body>;

Refusal refusal_of(const boost::beast::error_code& code, const HeadLimits& limits) {
  if (code == http::error::header_limit) {
    return {431, "headers_too_long",
            concat("the request's headers are longer than ", limits.max_header_bytes, " bytes")};
  }
  if (code == http::error::body_limit) {
    return {413, "body_too_large",
            concat("the request's body is larger than ", limits.max_body_bytes, " bytes")};
  }
  return {400, "invalid_http", concat("the request is no valid HTTP: ", code.message())};
}

// What a valid head may not hold here.
std::optional<Refusal> find_fault(const Parser& parser, const HeadLimits& limits) {
  const auto& head = parser.get();
  if (head.count(http::field::transfer_encoding) > 0) {
    return Refusal{411, "length_required",
                   "a request with Transfer-Encoding is not read; send Content-Length"};
  }
  for (const auto& [name, text] : {std::pair(http::field::host, "Host"),
                                   std::pair(http::field::content_length, "Content-Length")}) {
    if (head.count(name) > 1) {
      return Refusal{400, "invalid_http", concat("the request has several headers ", text)};
    }
  }
  // "1, 1" is the same as 1 for some, and none for others.
  const auto length_text = head[http::field::content_length];
  if (!std::all_of(length_text.begin(), length_text.end(), is_digit)) {
    return Refusal{400, "invalid_http", "the request's Content-Length is no number"};
  }
  if (head.version() != 10 && head.version() != 11) {
    return Refusal{400, "invalid_http", "the request's version is neither HTTP/1.0 nor HTTP/1.1"};
  }
  if (head.version() == 11 && head.count(http::field::host) == 0) {
    return Refusal{400, "invalid_http", "the request has no header Host"};
  }
  if (static_cast<std::int64_t>(head.target().size()) > limits.max_target_bytes) {
    return Refusal{414, "url_too_long",
                   concat("the request's URL is longer than ", limits.max_target_bytes, " bytes")};
  }
  if (!head.target().starts_with('/')) {
    return Refusal{400, "invalid_http", "the request's target doesn't begin with /"};
  }
  const auto length = parser.content_length();
  if (length && *length > static_cast<std::uint64_t>(limits.max_body_bytes)) {
    return Refusal{413, "body_too_large",
                   concat("the request's body has ", *length, " bytes; at most ",
                          limits.max_body_bytes, " are read")};
  }
  const std::string expect(head[http::field::expect]);
  if (!expect.empty() && ascii_lower(expect) != "100-continue") {
    return Refusal{417, "invalid_http", "only 100-continue can be expected"};
  }
  return std::nullopt;
}

}  // namespace

struct RequestParser::State {
  std::optional<Parser> parser;
};

RequestParser::RequestParser(HeadLimits limits)
    : limits_(limits), state_(std::make_unique<State>()) {
  reset();
}

RequestParser::~RequestParser() = default;

void RequestParser::reset() {
  state_->parser.emplace();
  state_->parser->header_limit(static_cast<std::uint32_t>(limits_.max_header_bytes));
  state_->parser->body_limit(static_cast<std::uint64_t>(limits_.max_body_bytes));
  state_->parser->skip(true);  // the body is read by the connection
}

std::optional<RequestParser::Head> RequestParser::take(std::string& input) {
  Parser& parser = *state_->parser;
  boost::beast::error_code code;
  const std::size_t used = parser.put(boost::asio::const_buffer(input.data(), input.size()), code);
  input.erase(0, used);
  Head head;
  if (code == http::error::need_more) {
    const bool is_full = static_cast<std::int64_t>(input.size()) > limits_.max_header_bytes;
    if (!is_full) return std::nullopt;
    code = http::error::header_limit;
  }
  if (code) {
    head.refusal = refusal_of(code, limits_);
    head.request.id = request_id("");
    return head;
  }
  if (!parser.is_header_done()) return std::nullopt;
  const auto& message = parser.get();
  for (const auto& field : message) {
    head.request.headers.push_back(
        {ascii_lower(std::string(field.name_string())), std::string(field.value())});
  }
  const std::string target(message.target());
  const auto mark = target.find('?');
  head.request.method = std::string(message.method_string());
  head.request.path = target.substr(0, mark);
  if (mark != std::string::npos) head.request.query = target.substr(mark + 1);
  head.request.id = request_id(head.request.header("x-request-id"));
  head.refusal = find_fault(parser, limits_);
  head.body_size = static_cast<std::size_t>(parser.content_length().value_or(0));
  head.is_http_1_0 = message.version() == 10;
  head.keeps_connection = message.keep_alive();
  head.wants_continue = head.request.has("expect") && head.body_size > 0;
  return head;
}

}  // namespace vlm::infer
