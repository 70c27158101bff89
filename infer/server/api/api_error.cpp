#include "infer/server/api/api_error.h"

#include <nlohmann/json.hpp>

#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostShown = 200;

const char* type_of(int status) {
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

// The parameter stands in a member of its own and, for readers, in front of the message.
ErrorParts placed(const ApiFault& fault, ErrorParts parts) {
  parts.where = fault.param;
  parts.got = shown(parts.got);
  return parts;
}

}  // namespace

ApiError::ApiError(ApiFault fault, ErrorParts parts)
    : Error(placed(fault, std::move(parts))), fault_(std::move(fault)) {}

OrderedJson to_json(const ApiError& error) {
  OrderedJson body = {{"message", error.what()},
                      {"type", type_of(error.status())},
                      {"param", error.param().empty() ? OrderedJson() : OrderedJson(error.param())},
                      {"code", error.code()}};
  if (error.context) {
    body["n_prompt_tokens"] = error.context->prompt_tokens;
    body["n_ctx"] = error.context->context;
  }
  return {{"error", std::move(body)}};
}

WebReply to_reply(const ApiError& error) {
  WebReply reply{.status = error.status(), .body = dump_text(to_json(error))};
  if (error.retry_after_s > 0) {
    reply.headers.push_back({"Retry-After", std::to_string(error.retry_after_s)});
  }
  if (error.status() == 401) reply.headers.push_back({"WWW-Authenticate", "Bearer"});
  return reply;
}

ApiError bad_value(const std::string& param, const OrderedJson& got, const std::string& wanted,
                   const std::string& hint) {
  return bad_value(param, describe(Json(got)), wanted, hint);
}

ApiError bad_value(const std::string& param, const std::string& got, const std::string& wanted,
                   const std::string& hint) {
  return ApiError({.param = param},
                  {.what = "unusable value", .got = got, .wanted = wanted, .hint = hint});
}

ApiError missing_value(const std::string& param, const std::string& wanted) {
  return bad_value(param, std::string("nothing"), wanted);
}

ApiError unsupported(const std::string& param, const std::string& what, const std::string& hint) {
  return ApiError({.code = "unsupported_parameter", .param = param}, {.what = what, .hint = hint});
}

ApiError internal_error(const std::string& request_id) {
  return ApiError({.status = 500, .code = "internal"},
                  {.what = concat("the server failed; its log names request ", request_id)});
}

ApiError shutting_down() {
  ApiError error({.status = 503, .code = "shutting_down"}, {.what = "the server is shutting down"});
  error.retry_after_s = 5;
  return error;
}

ApiError queue_full(std::int64_t retry_after_s) {
  ApiError error({.status = 429, .code = "queue_full"},
                 {.what = "too many requests wait already",
                  .hint = concat("try again in ", retry_after_s, " s")});
  error.retry_after_s = retry_after_s;
  return error;
}

std::string shown(const std::string& text) {
  if (text.size() <= kMostShown) return text;
  std::size_t end = kMostShown - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

}  // namespace vlm::infer
