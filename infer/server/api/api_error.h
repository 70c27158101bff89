// Why a request is refused, as OpenAI's clients read it.
//
//   ApiError{status, code, param, message} ─► {"error": {"message", "type", "param", "code"}}
//
// The message is one line: what, got, wanted, hint. It holds at most 200 bytes of what the client
// sent, and no path of this machine. Codes are stable (docs/serving.md).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "infer/server/http/http_message.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::infer {

struct ApiFault {
  int status = 400;
  std::string code = "invalid_value";
  std::string param = {};  // "messages[0].content[1].image_url.url"; empty: null
};

class ApiError : public Error {
 public:
  ApiError(ApiFault fault, ErrorParts parts);

  int status() const { return fault_.status; }
  const std::string& code() const { return fault_.code; }
  const std::string& param() const { return fault_.param; }

  // Of a prompt that doesn't fit; clients learn their limit from these.
  struct ContextSize {
    std::int64_t prompt_tokens = 0, context = 0;
  };
  std::optional<ContextSize> context;
  // Seconds after which trying again makes sense; 0: it doesn't.
  std::int64_t retry_after_s = 0;

 private:
  ApiFault fault_;
};

// {"error": {…}}
OrderedJson to_json(const ApiError& error);
WebReply to_reply(const ApiError& error);

// A field of the body with a value that can't be taken.
ApiError bad_value(const std::string& param, const OrderedJson& got, const std::string& wanted,
                   const std::string& hint = "");
ApiError bad_value(const std::string& param, const std::string& got, const std::string& wanted,
                   const std::string& hint = "");
ApiError missing_value(const std::string& param, const std::string& wanted);
// A field that would change the answer, and can't.
ApiError unsupported(const std::string& param, const std::string& what,
                     const std::string& hint = "");
ApiError internal_error(const std::string& request_id);
ApiError shutting_down();
ApiError queue_full(std::int64_t retry_after_s);

// A client's text, cut to what may stand in a message.
std::string shown(const std::string& text);

}  // namespace vlm::infer
