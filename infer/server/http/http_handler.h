// Who answers HTTP requests, and how answers go out.
//
//   HttpServer ─► check (head alone) ─► handle (whole request) ─► Exchange::reply
//                                                              or begin_stream, send …, end_stream
//
// A handler is called on the network thread and must return at once; an Exchange takes calls from
// any thread, and only posts. Whatever happens, `ended` comes exactly once for each request whose
// head could be read.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "infer/server/http/http_message.h"

namespace vlm::infer {

struct RequestFacts;  // what the log line and the metrics say of a request; the service's own

// One request that is being answered.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual void reply(WebReply reply) = 0;

  // Sends the head now. `beat` is sent whenever nothing else was for a while.
  virtual void begin_stream(WebReply head, std::string beat) = 0;
  virtual void send(std::string piece) = 0;
  virtual void end_stream() = 0;

  // True once the client has left; what is sent then is dropped.
  virtual bool is_gone() const = 0;
  // Called once on the network thread if the client leaves, or stops reading, before the answer is
  // complete; at once if it has left already.
  virtual void on_gone(std::function<void()> callback) = 0;

  std::shared_ptr<RequestFacts> facts;
};

struct ExchangeEnd {
  std::string id, method, path;
  int status = 0;  // that was sent; 499 when the client left before there was any
  bool is_gone = false;
  double seconds = 0;  // since the head was read
  std::shared_ptr<RequestFacts> facts;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;

  // Looks at a request whose body has not been read. What it returns is sent, and the connection
  // closed if there was a body.
  virtual std::optional<WebReply> check(const WebRequest& head) = 0;
  virtual void handle(WebRequest request, std::shared_ptr<Exchange> exchange) = 0;
  // The reply to a request that is no good HTTP or breaks a limit. `code` is a word for programs.
  virtual WebReply refuse(int status, const std::string& code, const std::string& message) = 0;
  virtual void ended(const ExchangeEnd& end) = 0;
};

}  // namespace vlm::infer
