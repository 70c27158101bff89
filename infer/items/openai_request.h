// One line of an OpenAI batch file → an entry.
//
//   {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body": {"model", "messages",
//   …}}
//
// Pictures are data URIs or files under the folder of the batch file, videos such files. Of the
// body, max_tokens, max_completion_tokens, temperature, top_p, n, stop and seed become the entry's
// overrides; model is repeated in the answer and chooses nothing; user, metadata, store and
// service_tier are about OpenAI's service and have no meaning here. Fields that would change the
// answer are accepted only with the value that changes nothing. Fields that are null are as if they
// weren't there. Everything else is an Error.
#pragma once

#include "infer/items/entry_source.h"

namespace vlm::infer {

bool is_openai_request(const Json& row);

// Throws Error for what the format, or this program, doesn't have.
Entry parse_openai_request(const OrderedJson& row, const data::MediaRoot& root);

}  // namespace vlm::infer
