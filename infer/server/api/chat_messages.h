// Messages of a request, with their texts, pictures and clips.
#pragma once

#include <string>

#include "infer/server/api/body_reader.h"
#include "infer/server/api/request.h"

namespace vlm::infer {

// Reads the list `name` of the body behind the messages that are there already. Parts are OpenAI's
// (text, image_url), those of its Responses (input_text, output_text, input_image) and of others
// (video_url, input_video). Throws ApiError naming the place.
void read_messages(BodyReader& body, const std::string& name, const ApiLimits& limits,
                   ChatRequest& request);

}  // namespace vlm::infer
