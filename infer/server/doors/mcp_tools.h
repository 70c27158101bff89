// What `vlm mcp` offers to agents: look, choose and watch.
//
//   arguments of a call ─► to_mcp_question ─► (a chat completion) ─► to_tool_result
//
// Media are data URIs, base64 alone, or paths below the allowed folder.
#pragma once

#include <string>

#include "infer/server/http/http_message.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// The list of tools with their schemas.
OrderedJson list_mcp_tools();
bool is_mcp_tool(const std::string& name);

// The body of a chat completion. Throws ApiError naming the argument.
OrderedJson to_mcp_question(const std::string& tool, const OrderedJson& arguments);

// {"content", "structuredContent", "isError"} of the reply to it.
OrderedJson to_tool_result(const std::string& tool, const OrderedJson& arguments,
                           const WebReply& reply);
// The same for a call that can't be asked.
OrderedJson failed_tool_result(const std::string& message);

}  // namespace vlm::infer
