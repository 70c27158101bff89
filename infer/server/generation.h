// What a client asks for → options of the generator.
#pragma once

#include "infer/request.h"
#include "infer/server/api/request.h"
#include "vlm/text/tokenizer.h"

namespace vlm::infer {

struct Room {
  std::int64_t prompt_tokens = 0, context = 0, max_tokens = 0;
};

// The checkpoint's options, replaced where the client asks for something. Temperature 0 is greedy;
// without a seed one is drawn. Throws ApiError for what doesn't go together.
GenerationOptions make_generation_options(GenerationOptions checkpoint, const AskedAnswer& asked,
                                          const Tokenizer& tokenizer, const Room& room);

}  // namespace vlm::infer
