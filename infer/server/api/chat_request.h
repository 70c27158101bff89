// The body of POST /v1/chat/completions, or /v1/completions → a checked request.
//
// Every field has a rule: it is used, or it is known to mean nothing here, or it is refused by
// name. Names that nobody knows are listed (AskedAnswer::ignored), or refused with the nearest one
// that there is. Throws ApiError naming the field. Nothing is decoded but base64.
#pragma once

#include "infer/server/api/request.h"

namespace vlm::infer {

ChatRequest read_chat_request(const OrderedJson& body, const ApiLimits& limits);
CompletionRequest read_completion_request(const OrderedJson& body, const ApiLimits& limits);

}  // namespace vlm::infer
