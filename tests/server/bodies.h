// Bodies of chat requests, and what they are refused with.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "infer/server/api/chat_request.h"
#include "tests/server/refusals.h"

namespace vlm::infer {

// 1 x 1 pixel.
inline const std::string kPng =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg"
    "==";

inline Json messages_of(const Json& content) {
  return Json::array({{{"role", "user"}, {"content", content}}});
}

inline Json chat_body(const Json& fields, const Json& content = "hello") {
  Json body = {{"messages", messages_of(content)}};
  if (!fields.is_null()) body.update(fields);
  return body;
}

inline ChatRequest read(const Json& body, const ApiLimits& limits = {}) {
  return read_chat_request(body, limits);
}

inline std::string refusal(const Json& fields, const Json& content = "hello",
                           ApiLimits limits = {}) {
  return refusal_of([&] { read(chat_body(fields, content), limits); });
}

}  // namespace vlm::infer
