// Bytes of a connection → heads of requests. Nothing may crash, and each head takes bytes or ends
// the connection, so that no input is read for ever.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "infer/server/http/request_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vlm::infer::RequestParser parser({.max_header_bytes = 4096, .max_target_bytes = 1024});
  std::string input(reinterpret_cast<const char*>(data), size);
  for (;;) {
    const std::size_t before = input.size();
    const auto head = parser.take(input);
    if (!head || head->refusal) return 0;
    if (input.size() >= before) std::abort();
    // What has a fault must have been refused.
    if (head->request.has("transfer-encoding") || !head->request.path.starts_with('/')) {
      std::abort();
    }
    input.erase(0, head->body_size);
    parser.reset();
  }
}
