// One line of an OpenAI batch file → an entry.
//
//   {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body": {"model", "messages",
//   …}}
//
// Pictures are data URIs or files below the batch file's folder; videos are files there. Fields of
// the body:
//   max_tokens, max_completion_tokens, temperature, top_p, n, stop, seed, response_format,
//   structured_outputs                       become overrides
//   model                                    is repeated in the answer and chooses nothing
//   user, metadata, store, service_tier      are ignored: they are about OpenAI's service
// Other known fields would change the answer and are accepted only with their default value. A null
// field counts as missing. Any other field is an Error.
#pragma once

#include "infer/items/entry_source.h"

namespace vlm::infer {

bool is_openai_request(const Json& row);

// Throws Error for a field or value that the format, or this program, doesn't support.
Entry parse_openai_request(const OrderedJson& row, const data::MediaRoot& root);

}  // namespace vlm::infer
