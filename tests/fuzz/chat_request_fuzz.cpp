// Bodies of chat and plain completions → checked requests. Only ApiError may be thrown.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "infer/server/api/api_error.h"
#include "infer/server/api/body_reader.h"
#include "infer/server/api/chat_request.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const vlm::OrderedJson body = vlm::infer::parse_body(text);
    for (const bool is_strict : {false, true}) {
      vlm::infer::ApiLimits limits;
      limits.refuses_unknown = is_strict;
      try {
        vlm::infer::read_chat_request(body, limits);
      } catch (const vlm::infer::ApiError& error) {
        vlm::infer::to_reply(error);
      }
      try {
        vlm::infer::read_completion_request(body, limits);
      } catch (const vlm::infer::ApiError& error) {
        vlm::infer::to_reply(error);
      }
    }
  } catch (const vlm::infer::ApiError& error) {
    vlm::infer::to_reply(error);
  }
  return 0;
}
