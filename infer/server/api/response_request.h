// The body of POST /v1/responses, without state → the same request as a chat's.
//
// `input` is a text or a list of messages, `instructions` a system message in front. What needs a
// memory of earlier responses (previous_response_id, conversation, background) is refused.
#pragma once

#include "infer/server/api/request.h"

namespace vlm::infer {

// What a response repeats of its request.
struct ResponseEcho {
  OrderedJson instructions, temperature, top_p, metadata, max_output_tokens, format;
};

// Throws ApiError naming the field.
ChatRequest read_response_request(const OrderedJson& body, const ApiLimits& limits);
ResponseEcho read_response_echo(const OrderedJson& body);

}  // namespace vlm::infer
