#include "infer/server/api/response_reply.h"

#include <nlohmann/json.hpp>

#include "infer/server/http/http_head.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

OrderedJson usage_json(const OrderedJson& chat) {
  if (chat.is_null()) return nullptr;
  return {
      {"input_tokens", chat["prompt_tokens"]},
      {"input_tokens_details", {{"cached_tokens", chat["prompt_tokens_details"]["cached_tokens"]}}},
      {"output_tokens", chat["completion_tokens"]},
      {"output_tokens_details", {{"reasoning_tokens", 0}}},
      {"total_tokens", chat["total_tokens"]}};
}

OrderedJson or_else(const OrderedJson& value, double fallback) {
  return value.is_null() ? OrderedJson(fallback) : value;
}

}  // namespace

ResponseWriter::ResponseWriter(ReplyHead head, AskedAnswer asked, ResponseEcho echo)
    : head_(std::move(head)),
      asked_(std::move(asked)),
      echo_(std::move(echo)),
      item_id_(concat("msg_", random_hex(32))) {}

OrderedJson ResponseWriter::response(const std::string& status, OrderedJson output,
                                     OrderedJson usage) const {
  const bool is_cut = status == "incomplete";
  return {
      {"id", head_.id},
      {"object", "response"},
      {"created_at", head_.created},
      {"status", status},
      {"background", false},
      {"error", nullptr},
      {"incomplete_details", is_cut ? OrderedJson{{"reason", "max_output_tokens"}} : OrderedJson()},
      {"instructions", echo_.instructions},
      {"max_output_tokens", echo_.max_output_tokens},
      {"metadata", echo_.metadata},
      {"model", head_.model},
      {"output", std::move(output)},
      {"parallel_tool_calls", true},
      {"previous_response_id", nullptr},
      {"store", false},
      {"temperature", or_else(echo_.temperature, 0)},
      {"text", {{"format", echo_.format}}},
      {"tool_choice", "none"},
      {"tools", OrderedJson::array()},
      {"top_logprobs", asked_.top_logprobs},
      {"top_p", or_else(echo_.top_p, 1)},
      {"truncation", "disabled"},
      {"usage", std::move(usage)}};
}

OrderedJson ResponseWriter::item(const std::string& status, OrderedJson content) const {
  return {{"id", item_id_},
          {"type", "message"},
          {"status", status},
          {"role", "assistant"},
          {"content", std::move(content)}};
}

OrderedJson ResponseWriter::text_part(const ReplyChoice& answer) const {
  const OrderedJson logprobs = logprobs_json(asked_, answer.tokens);
  return {{"type", "output_text"},
          {"text", answer.text},
          {"annotations", OrderedJson::array()},
          {"logprobs", logprobs.is_null() ? OrderedJson::array() : logprobs["content"]}};
}

std::string ResponseWriter::whole(const ReplyParts& parts) {
  const ReplyChoice& answer = parts.choices.at(0);
  const std::string status = answer.finish_reason == "stop" ? "completed" : "incomplete";
  OrderedJson json =
      response(status, OrderedJson::array({item(status, OrderedJson::array({text_part(answer)}))}),
               usage_json(parts.usage));
  if (!parts.own.is_null()) json["vlm"] = parts.own;
  return dump_text(json);
}

std::string ResponseWriter::event(const std::string& type, const OrderedJson& fields) {
  OrderedJson json = {{"type", type}, {"sequence_number", events_++}};
  json.update(fields);
  return concat("event: ", type, "\n", data_event(json));
}

OrderedJson ResponseWriter::place() const {
  return {{"item_id", item_id_}, {"output_index", 0}, {"content_index", 0}};
}

std::string ResponseWriter::begin() {
  const OrderedJson running = {
      {"response", response("in_progress", OrderedJson::array(), nullptr)}};
  OrderedJson part = place();
  part["part"] = text_part({});
  // One after the other, as each takes the next number.
  std::string events = event("response.created", running);
  events += event("response.in_progress", running);
  events += event("response.output_item.added",
                  {{"output_index", 0}, {"item", item("in_progress", OrderedJson::array())}});
  return events + event("response.content_part.added", part);
}

std::string ResponseWriter::piece(std::int64_t, const ReplyChoice& more) {
  streamed_.text += more.text;
  streamed_.tokens.insert(streamed_.tokens.end(), more.tokens.begin(), more.tokens.end());
  OrderedJson delta = place();
  delta["delta"] = more.text;
  delta["logprobs"] = text_part(more)["logprobs"];
  return event("response.output_text.delta", delta);
}

std::string ResponseWriter::end(const ReplyParts& parts) {
  const bool is_whole = parts.choices.at(0).finish_reason == "stop";
  const std::string status = is_whole ? "completed" : "incomplete";
  const OrderedJson text = text_part(streamed_);
  const OrderedJson message = item(status, OrderedJson::array({text}));
  OrderedJson done = place(), part = place();
  done["text"] = streamed_.text;
  done["logprobs"] = text["logprobs"];
  part["part"] = text;
  OrderedJson whole = response(status, OrderedJson::array({message}), usage_json(parts.usage));
  if (!parts.own.is_null()) whole["vlm"] = parts.own;
  std::string events = event("response.output_text.done", done);
  events += event("response.content_part.done", part);
  events += event("response.output_item.done", {{"output_index", 0}, {"item", message}});
  return events + event(concat("response.", status), {{"response", std::move(whole)}});
}

std::string ResponseWriter::fail(const ApiError& error) {
  const OrderedJson json = to_json(error)["error"];
  return event("error",
               {{"code", json["code"]}, {"message", json["message"]}, {"param", json["param"]}});
}

}  // namespace vlm::infer
