// Fields of a request that say how to answer, alike in chat and plain completions.
#pragma once

#include "infer/server/api/body_reader.h"
#include "infer/server/api/request.h"

namespace vlm::infer {

// Reads all of them but the prompt; at the end every field of the body has been looked at, or is in
// `ignored`. Call it after the prompt's fields were read. Throws ApiError.
AskedAnswer read_answer_fields(BodyReader& body, const ApiLimits& limits);

// A response_format, which stands at `path`.
Constraint read_format(const OrderedJson& value, const std::string& path);
// response_format and structured_outputs.
Constraint read_constraint(BodyReader& body, const ApiLimits& limits);

}  // namespace vlm::infer
