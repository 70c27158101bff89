// The Model Context Protocol on a line each: an agent's program asks, this answers.
//
//   line ─► take ─► answered at once, or AskChat … ─► write(line)
//
// Two kinds of clients are answered, also side by side: those that begin with `initialize`
// (revisions 2024-11-05 to 2025-11-25), and those of 2026-07-28, which say their revision in every
// request's _meta. Calls run side by side; one that is cancelled gets no answer.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "infer/server/http/http_message.h"
#include "vlm/core/json.h"

namespace vlm::infer {

class McpSession {
 public:
  using Done = std::function<void(const WebReply&)>;
  using Cancel = std::function<void()>;
  // Asks a chat completion; `done` is called once, on any thread, unless it is cancelled.
  using AskChat = std::function<Cancel(const OrderedJson& body, Done done)>;

  // `write` gets a message with its line's end, from one thread at a time.
  McpSession(AskChat ask, std::function<void(const std::string&)> write);

  // One message. Called by one thread.
  void take(std::string_view line);
  // Answers a line that was too long to be read.
  void refuse_long_line(std::size_t most_bytes);
  // Calls that are being answered.
  std::size_t running() const;
  void cancel_all();

 private:
  void answer(const OrderedJson& message);
  OrderedJson result_of(const std::string& method, const OrderedJson& params);
  void call_tool(const OrderedJson& id, const OrderedJson& params, bool is_stateless);
  void finish_call(const OrderedJson& id, OrderedJson result, bool is_stateless);
  void cancel(const OrderedJson& params);
  void send(const OrderedJson& message);
  void send_result(const OrderedJson& id, OrderedJson result, bool is_stateless);

  const AskChat ask_;
  const std::function<void(const std::string&)> write_;
  std::mutex write_mutex_;
  mutable std::mutex mutex_;               // of running_
  std::map<std::string, Cancel> running_;  // by the request's id as JSON
};

}  // namespace vlm::infer
