// The parts of a response that are written before its body, and ids of requests.
#pragma once

#include <string>
#include <string_view>

#include "infer/server/http/http_message.h"

namespace vlm::infer {

struct ResponseForm {
  bool is_http_1_0 = false;
  bool keeps_connection = true;
  bool is_stream = false;       // its length isn't known; chunked, but for HTTP/1.0
  bool is_body_hidden = false;  // of HEAD
};

// Status line and headers with the empty line behind them. Line ends in values are left out, so
// that none can begin a header of its own.
std::string response_head(const WebReply& reply, const std::string& request_id,
                          const ResponseForm& form);

// A piece of a chunked body.
std::string chunk_of(std::string_view piece);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

// `wanted` if it is 1 to 128 of A-Z a-z 0-9 . _ -, else "req-" and 32 random hex digits.
std::string request_id(std::string_view wanted);

// `digits` random hex digits.
std::string random_hex(std::size_t digits);

}  // namespace vlm::infer
