#include "infer/server/doors/mcp_session.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "infer/server/api/api_error.h"
#include "infer/server/doors/mcp_tools.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {
namespace {

constexpr const char* kStateless = "2026-07-28";
constexpr std::array kHandshakes = {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};
constexpr const char* kVersionKey = "io.modelcontextprotocol/protocolVersion";
constexpr const char* kServerKey = "io.modelcontextprotocol/serverInfo";

// JSON-RPC's codes, and MCP's own.
constexpr int kParseError = -32700, kInvalidRequest = -32600, kMethodNotFound = -32601,
              kInvalidParams = -32602, kInternalError = -32603, kUnsupportedVersion = -32022;

struct RpcError {
  int code = 0;
  std::string message;
  OrderedJson data = {};
};

OrderedJson supported_versions() {
  OrderedJson versions = {kStateless};
  for (const char* version : kHandshakes) versions.push_back(version);
  return versions;
}

OrderedJson server_info() {
  return {{"name", "vlm"}, {"title", "vlm: looks at pictures and clips"}, {"version", VLM_VERSION}};
}

constexpr const char* kInstructions =
    "A vision-language model on this machine. look and watch answer questions about pictures and "
    "clips, choose decides between given answers with exact probabilities.";

OrderedJson rpc_error(const OrderedJson& id, const RpcError& error) {
  OrderedJson body = {{"code", error.code}, {"message", error.message}};
  if (!error.data.is_null()) body["data"] = error.data;
  return {{"jsonrpc", "2.0"}, {"id", id}, {"error", body}};
}

// Whether the request is one of the stateless revision, which says so itself.
bool check_is_stateless(const OrderedJson& params) {
  if (!params.contains("_meta") || !params["_meta"].is_object()) return false;
  const OrderedJson& meta = params["_meta"];
  if (!meta.contains(kVersionKey)) return false;
  if (meta[kVersionKey] == kStateless) return true;
  throw RpcError{.code = kUnsupportedVersion,
                 .message = "unsupported protocol version",
                 .data = {{"supported", supported_versions()}, {"requested", meta[kVersionKey]}}};
}

OrderedJson initialize(const OrderedJson& params) {
  const OrderedJson asked = params.value("protocolVersion", OrderedJson());
  const bool is_known = std::any_of(kHandshakes.begin(), kHandshakes.end(),
                                    [&](const char* version) { return asked == version; });
  const OrderedJson tools = {{"tools", OrderedJson::object()}};
  return {{"protocolVersion", is_known ? asked : OrderedJson(kHandshakes[0])},
          {"capabilities", tools},
          {"serverInfo", server_info()},
          {"instructions", kInstructions}};
}

OrderedJson discover() {
  const OrderedJson tools = {{"tools", OrderedJson::object()}};
  return {{"supportedVersions", supported_versions()},
          {"capabilities", tools},
          {"instructions", kInstructions}};
}

// What a request of the stateless revision gets beside its result.
void add_stateless_members(OrderedJson& result) {
  result["resultType"] = "complete";
  result["_meta"] = {{kServerKey, server_info()}};
  if (!result.contains("tools") && !result.contains("supportedVersions")) return;
  result["ttlMs"] = 3'600'000;  // neither changes while this program runs
  result["cacheScope"] = "private";
}

}  // namespace

McpSession::McpSession(AskChat ask, std::function<void(const std::string&)> write)
    : ask_(std::move(ask)), write_(std::move(write)) {}

void McpSession::take(std::string_view line) {
  OrderedJson message;
  try {
    message = parse_ordered_json(line, "the message");
  } catch (const Error& error) {
    return send(rpc_error(nullptr, {.code = kParseError, .message = error.what()}));
  }
  if (!message.is_object() || message.value("jsonrpc", OrderedJson()) != "2.0") {
    return send(rpc_error(nullptr, {.code = kInvalidRequest,
                                    .message = "one JSON-RPC 2.0 message a line; no batches"}));
  }
  if (!message.contains("method")) return;  // an answer, though nothing was asked
  const OrderedJson id = message.value("id", OrderedJson());
  try {
    answer(message);
  } catch (const RpcError& error) {
    if (!id.is_null()) send(rpc_error(id, error));
  } catch (const std::exception& error) {  // ours; the next message is answered
    log_warning(error_text(error));
    const std::lock_guard lock(mutex_);
    running_.erase(id.dump());
    send(rpc_error(id, {.code = kInternalError, .message = "this program failed"}));
  }
}

void McpSession::refuse_long_line(std::size_t most_bytes) {
  send(rpc_error(nullptr, {.code = kInvalidRequest,
                           .message = concat("a message over ", most_bytes, " bytes")}));
}

void McpSession::answer(const OrderedJson& message) {
  if (!message["method"].is_string()) throw RpcError{kInvalidRequest, "the method is no text"};
  const std::string method = message["method"];
  const OrderedJson params = message.value("params", OrderedJson::object());
  if (!params.is_object()) throw RpcError{kInvalidParams, "params is no object"};
  if (!message.contains("id")) {
    if (method == "notifications/cancelled") cancel(params);
    return;
  }
  const OrderedJson& id = message["id"];
  if (!id.is_string() && !id.is_number_integer()) {
    return send(
        rpc_error(nullptr, {.code = kInvalidRequest, .message = "an id is text or a number"}));
  }
  const bool is_stateless = method != "initialize" && check_is_stateless(params);
  if (method == "tools/call") return call_tool(id, params, is_stateless);
  send_result(id, result_of(method, params), is_stateless);
}

OrderedJson McpSession::result_of(const std::string& method, const OrderedJson& params) {
  if (method == "initialize") return initialize(params);
  if (method == "server/discover") return discover();
  if (method == "tools/list") return {{"tools", list_mcp_tools()}};
  if (method == "ping") return OrderedJson::object();
  throw RpcError{kMethodNotFound, concat("no method '", shown(method), "'")};
}

void McpSession::call_tool(const OrderedJson& id, const OrderedJson& params, bool is_stateless) {
  const OrderedJson name = params.value("name", OrderedJson());
  if (!name.is_string() || !is_mcp_tool(name)) {
    throw RpcError{kInvalidParams, "no such tool; there are look, choose and watch"};
  }
  const std::string tool = name;
  const OrderedJson arguments = params.value("arguments", OrderedJson::object());
  const std::string key = id.dump();
  {
    const std::lock_guard lock(mutex_);
    if (!running_.emplace(key, nullptr).second) {
      throw RpcError{kInvalidRequest, "a request of this id is being answered"};
    }
  }
  OrderedJson question;
  try {
    question = to_mcp_question(tool, arguments);
  } catch (const ApiError& error) {
    return finish_call(id, failed_tool_result(error.what()), is_stateless);
  }
  Cancel stop = ask_(question, [this, id, tool, arguments, is_stateless](const WebReply& reply) {
    finish_call(id, to_tool_result(tool, arguments, reply), is_stateless);
  });
  const std::lock_guard lock(mutex_);
  const auto place = running_.find(key);
  if (place != running_.end()) place->second = std::move(stop);
}

void McpSession::finish_call(const OrderedJson& id, OrderedJson result, bool is_stateless) {
  {
    const std::lock_guard lock(mutex_);
    if (running_.erase(id.dump()) == 0) return;  // cancelled
  }
  send_result(id, std::move(result), is_stateless);
}

void McpSession::cancel(const OrderedJson& params) {
  Cancel stop;
  {
    const std::lock_guard lock(mutex_);
    const auto place = running_.find(params.value("requestId", OrderedJson()).dump());
    if (place == running_.end()) return;  // it was quicker
    stop = std::move(place->second);
    running_.erase(place);
  }
  if (stop) stop();
}

std::size_t McpSession::running() const {
  const std::lock_guard lock(mutex_);
  return running_.size();
}

void McpSession::cancel_all() {
  std::map<std::string, Cancel> all;
  {
    const std::lock_guard lock(mutex_);
    all.swap(running_);
  }
  for (auto& [id, stop] : all) {
    if (stop) stop();
  }
}

void McpSession::send_result(const OrderedJson& id, OrderedJson result, bool is_stateless) {
  if (is_stateless) add_stateless_members(result);
  send({{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}});
}

void McpSession::send(const OrderedJson& message) {
  const std::lock_guard lock(write_mutex_);
  write_(dump_text(message) + "\n");
}

}  // namespace vlm::infer
