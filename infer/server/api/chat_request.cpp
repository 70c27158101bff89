#include "infer/server/api/chat_request.h"

#include <nlohmann/json.hpp>

#include "infer/server/api/answer_fields.h"
#include "infer/server/api/chat_messages.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostPlainLogprobs = 20;

// The last turn is a question, or an answer that is to go on.
void check_last_turn(const ChatRequest& request) {
  const std::string& role = request.messages.back().role;
  const std::string place = concat("messages[", request.messages.size() - 1, "].role");
  if (request.continues_answer && role != "assistant") {
    throw bad_value(place, concat("'", role, "'"), "assistant, as continue_final_message is true");
  }
  if (!request.continues_answer && role != "user") {
    throw bad_value(
        place, concat("'", role, "'"), "user",
        role == "assistant" ? "continue_final_message: true goes on with an answer" : "");
  }
  if (!request.continues_answer) return;
  for (const ContentPart& part : request.messages.back().content) {
    if (part.type != "text") {
      throw bad_value(place, concat("a part of type ", part.type), "an answer of text alone");
    }
  }
}

}  // namespace

ChatRequest read_chat_request(const OrderedJson& json, const ApiLimits& limits) {
  ChatRequest request;
  BodyReader body(json, "");
  read_messages(body, "messages", limits, request);
  request.continues_answer = body.boolean("continue_final_message").value_or(false);
  const auto opens_turn = body.boolean("add_generation_prompt");
  if (opens_turn && *opens_turn == request.continues_answer) {
    throw unsupported("add_generation_prompt",
                      "it is the opposite of continue_final_message, always");
  }
  check_last_turn(request);
  request.asked = read_answer_fields(body, limits);
  const bool is_choice = request.asked.constraint.kind == Constraint::Kind::kChoice;
  if (is_choice && request.continues_answer) {
    throw unsupported("continue_final_message", "choices are whole answers");
  }
  return request;
}

CompletionRequest read_completion_request(const OrderedJson& json, const ApiLimits& limits) {
  CompletionRequest request;
  BodyReader body(json, "");
  const auto prompt = body.text("prompt", static_cast<std::size_t>(limits.max_text_bytes));
  if (!prompt || prompt->empty())
    throw bad_value("prompt", OrderedJson(prompt.value_or("")), "a text");
  request.prompt = *prompt;
  const OrderedJson* asked_logprobs = body.find("logprobs");
  const bool has_logprobs = asked_logprobs && *asked_logprobs != false;
  const auto logprobs =
      has_logprobs ? body.integer("logprobs", 0, kMostPlainLogprobs) : std::nullopt;
  for (const char* name : {"suffix", "echo", "best_of"}) {
    const OrderedJson* value = body.find(name);
    const bool is_neutral = !value || *value == false || *value == 1 || *value == "";
    if (!is_neutral) throw unsupported(name, concat(name, " is not supported"));
  }
  OrderedJson rest = json;
  rest.erase("logprobs");
  BodyReader fields(rest, "");
  fields.accept({"prompt", "suffix", "echo", "best_of"});
  request.asked = read_answer_fields(fields, limits);
  request.asked.has_logprobs = logprobs.has_value();
  request.asked.top_logprobs = logprobs.value_or(0);
  if (request.asked.constraint.kind == Constraint::Kind::kChoice) {
    throw unsupported(request.asked.constraint.param, "choices belong to chat completions");
  }
  return request;
}

}  // namespace vlm::infer
