// The bytes of a request's head → its parts, or why they are refused. Boost.Beast's parser does the
// reading; what it lets pass and proxies read differently is refused here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "infer/server/http/http_message.h"

namespace vlm::infer {

struct Refusal {
  int status = 400;
  std::string code, message;
};

struct HeadLimits {
  std::int64_t max_header_bytes = 32 << 10;
  std::int64_t max_target_bytes = 8 << 10;
  std::int64_t max_body_bytes = 32 << 20;
};

class RequestParser {
 public:
  struct Head {
    WebRequest request;  // without a body
    std::size_t body_size = 0;
    bool is_http_1_0 = false;
    bool keeps_connection = true;
    bool wants_continue = false;
    std::optional<Refusal> refusal;  // the parts above may then be incomplete
  };

  explicit RequestParser(HeadLimits limits);
  ~RequestParser();

  // Takes bytes off the front of `input`; nothing until the head is whole. Afterwards reset() for
  // the next one.
  std::optional<Head> take(std::string& input);
  void reset();

 private:
  struct State;
  HeadLimits limits_;
  std::unique_ptr<State> state_;
};

}  // namespace vlm::infer
