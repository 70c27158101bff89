#include "infer/server/api/response_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "infer/server/api/answer_fields.h"
#include "infer/server/api/chat_messages.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr const char* kLogprobs = "message.output_text.logprobs";

void refuse_state(BodyReader& body) {
  for (const char* name : {"previous_response_id", "conversation", "prompt"}) {
    if (body.find(name)) {
      throw unsupported(name, concat(name, " needs a server that remembers"),
                        "send the whole conversation as input");
    }
  }
  if (body.boolean("background").value_or(false)) {
    throw unsupported("background", "responses are not kept");
  }
  if (body.text("truncation", 64).value_or("disabled") != "disabled") {
    throw unsupported("truncation", "nothing of the input is left out");
  }
}

// Items that aren't messages belong to tools and memory.
void check_items(const OrderedJson& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_object() || !items[i].contains("type") || items[i]["type"] == "message") {
      continue;
    }
    throw bad_value(concat("input[", i, "].type"), items[i]["type"], "message");
  }
}

void read_input(BodyReader& body, const ApiLimits& limits, ChatRequest& request) {
  const auto most_bytes = static_cast<std::size_t>(limits.max_text_bytes);
  if (const auto instructions = body.text("instructions", most_bytes)) {
    request.messages.push_back(
        {.role = "system", .content = {{.type = "text", .text = *instructions}}});
  }
  const OrderedJson* input = body.find("input");
  if (input && input->is_string()) {
    const std::string text = *body.text("input", most_bytes);
    request.messages.push_back({.role = "user", .content = {{.type = "text", .text = text}}});
    return;
  }
  if (input && input->is_array()) check_items(*input);
  read_messages(body, "input", limits, request);
  if (request.messages.back().role != "user") {
    throw bad_value("input", concat("a last turn of the ", request.messages.back().role, "'s"),
                    "a user's");
  }
}

// The other fields under the names that chats have.
OrderedJson chat_fields(const OrderedJson& body, BodyReader& reader) {
  OrderedJson fields = body;
  for (const char* name : {"input", "instructions", "previous_response_id", "conversation",
                           "prompt", "background", "truncation", "include", "text",
                           "max_output_tokens", "reasoning", "max_tool_calls", "stream_options"}) {
    fields.erase(name);
  }
  if (const auto tokens = reader.integer("max_output_tokens", 1, 1 << 24)) {
    fields["max_completion_tokens"] = *tokens;
  }
  const OrderedJson* include = reader.array("include");
  const bool has_logprobs =
      include && std::find(include->begin(), include->end(), kLogprobs) != include->end();
  if (has_logprobs || body.value("top_logprobs", OrderedJson(0)) != 0) fields["logprobs"] = true;
  return fields;
}

}  // namespace

ChatRequest read_response_request(const OrderedJson& json, const ApiLimits& limits) {
  ChatRequest request;
  BodyReader body(json, "");
  refuse_state(body);
  read_input(body, limits, request);
  const OrderedJson rest = chat_fields(json, body);
  BodyReader fields(rest, "");
  request.asked = read_answer_fields(fields, limits);
  if (request.asked.sampling.n > 1) throw bad_value("n", request.asked.sampling.n, "1");
  if (const OrderedJson* text = body.object("text")) {
    BodyReader inside(*text, "text");
    if (const OrderedJson* format = inside.find("format")) {
      request.asked.constraint = read_format(*format, "text.format");
    }
  }
  return request;
}

ResponseEcho read_response_echo(const OrderedJson& body) {
  const auto field = [&](const char* name) { return body.value(name, OrderedJson()); };
  ResponseEcho echo{.instructions = field("instructions"),
                    .temperature = field("temperature"),
                    .top_p = field("top_p"),
                    .metadata = field("metadata"),
                    .max_output_tokens = field("max_output_tokens")};
  const OrderedJson text = field("text");
  echo.format = text.is_object() ? text.value("format", OrderedJson()) : OrderedJson();
  if (echo.format.is_null()) echo.format = {{"type", "text"}};
  if (echo.metadata.is_null()) echo.metadata = OrderedJson::object();
  return echo;
}

}  // namespace vlm::infer
