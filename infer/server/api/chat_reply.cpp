#include "infer/server/api/chat_reply.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "infer/server/api/reply_writer.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::infer {
namespace {

// -inf has no form in JSON; OpenAI writes the same for the unlikeliest.
constexpr double kLeastLogprob = -9999;

OrderedJson token_json(const TokenText& token) {
  OrderedJson bytes = OrderedJson::array();
  for (const char byte : token.bytes) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", to_valid_utf8(token.bytes)},
          {"logprob", std::isfinite(token.logprob) ? token.logprob : kLeastLogprob},
          {"bytes", std::move(bytes)}};
}

OrderedJson finish_json(const std::string& finish_reason) {
  if (finish_reason.empty()) return nullptr;
  return finish_reason == "stop" ? "stop" : "length";
}

OrderedJson head_json(const ReplyHead& head, const char* chat_object) {
  return {{"id", head.id},
          {"object", head.is_chat ? chat_object : "text_completion"},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", head.fingerprint}};
}

// An event with one choice, or with none.
OrderedJson event_json(const ReplyHead& head, const AskedAnswer& asked, OrderedJson choice) {
  OrderedJson event = head_json(head, "chat.completion.chunk");
  event["choices"] = OrderedJson::array({std::move(choice)});
  if (asked.has_usage_chunk) event["usage"] = nullptr;
  return event;
}

OrderedJson choice_json(const ReplyHead& head, std::int64_t index, OrderedJson delta,
                        OrderedJson logprobs, const std::string& finish_reason) {
  OrderedJson choice = {{"index", index}};
  if (head.is_chat) {
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = delta.value("content", "");
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = finish_json(finish_reason);
  return choice;
}

}  // namespace

OrderedJson logprobs_json(const AskedAnswer& asked, const std::vector<PieceToken>& tokens) {
  if (!asked.has_logprobs) return nullptr;
  OrderedJson content = OrderedJson::array();
  for (const PieceToken& token : tokens) {
    OrderedJson entry = token_json(token);
    entry["top_logprobs"] = OrderedJson::array();
    for (const TokenText& other : token.top) entry["top_logprobs"].push_back(token_json(other));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

std::int64_t count_characters(const std::string& bytes) {
  return std::ranges::count_if(
      bytes, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

OrderedJson plain_logprobs_json(const AskedAnswer& asked, const ReplyChoice& choice) {
  if (!asked.has_logprobs) return nullptr;
  OrderedJson offsets = OrderedJson::array(), values = offsets, texts = offsets, tops = offsets;
  std::int64_t at = choice.characters_before;
  for (const PieceToken& token : choice.tokens) {
    const OrderedJson one = token_json(token);
    OrderedJson top = OrderedJson::object();
    const auto add = [&top](const OrderedJson& its) {  // of one text the likeliest
      const auto& text = its["token"].get_ref<const std::string&>();
      if (!top.contains(text)) top[text] = its["logprob"];
    };
    for (const TokenText& other : token.top) add(token_json(other));
    add(one);
    offsets.push_back(at);
    values.push_back(one["logprob"]);
    texts.push_back(one["token"]);
    tops.push_back(std::move(top));
    at += count_characters(token.bytes);
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(values)},
          {"tokens", std::move(texts)},
          {"top_logprobs", std::move(tops)}};
}

std::string data_event(const OrderedJson& json) {
  return concat("data: ", dump_text(json), "\n\n");
}

std::string whole_reply(const ReplyHead& head, const AskedAnswer& asked, const ReplyParts& parts) {
  OrderedJson json = head_json(head, "chat.completion");
  json["choices"] = OrderedJson::array();
  for (std::size_t i = 0; i < parts.choices.size(); ++i) {
    const ReplyChoice& choice = parts.choices[i];
    OrderedJson one = {{"index", i}};
    if (head.is_chat) {
      one["message"] = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    } else {
      one["text"] = choice.text;
    }
    one["logprobs"] =
        head.is_chat ? logprobs_json(asked, choice.tokens) : plain_logprobs_json(asked, choice);
    one["finish_reason"] = finish_json(choice.finish_reason);
    json["choices"].push_back(std::move(one));
  }
  json["usage"] = parts.usage;
  if (!parts.own.is_null()) json["vlm"] = parts.own;
  if (!parts.timings.is_null()) json["timings"] = parts.timings;
  return dump_text(json);
}

OrderedJson usage_of(const RequestAnswer& answer) {
  std::int64_t completion = 0;
  for (const Generation& generation : answer.generations) completion += std::ssize(generation.ids);
  return {{"prompt_tokens", answer.prompt_tokens},
          {"completion_tokens", completion},
          {"total_tokens", answer.prompt_tokens + completion},
          {"prompt_tokens_details",
           {{"cached_tokens", answer.cached_tokens}, {"image_tokens", answer.media_tokens}}}};
}

OrderedJson timings_of(const RequestAnswer& answer) {
  std::int64_t completion = 0;
  for (const Generation& generation : answer.generations) completion += std::ssize(generation.ids);
  return {{"prompt_n", answer.prompt_tokens - answer.cached_tokens},
          {"prompt_ms", 1000 * (answer.vision_s + answer.prefill_s)},
          {"cache_n", answer.cached_tokens},
          {"predicted_n", completion},
          {"predicted_ms", 1000 * answer.decode_s},
          {"queue_ms", 1000 * answer.queue_s}};
}

OrderedJson confidence_of(const RequestAnswer& answer) {
  OrderedJson list = OrderedJson::array();
  for (const Generation& generation : answer.generations) {
    list.push_back({{"mean_logprob", generation.mean_logprob()},
                    {"min_logprob", generation.min_logprob()},
                    {"first_token_entropy", answer.first_token_entropy}});
  }
  return list.size() == 1 ? list[0] : list;
}

std::string role_event(const ReplyHead& head, const AskedAnswer& asked, std::int64_t index) {
  return data_event(
      event_json(head, asked,
                 choice_json(head, index, {{"role", "assistant"}, {"content", ""}}, nullptr, "")));
}

std::string piece_event(const ReplyHead& head, const AskedAnswer& asked, std::int64_t index,
                        const ReplyChoice& piece) {
  OrderedJson logprobs =
      head.is_chat ? logprobs_json(asked, piece.tokens) : plain_logprobs_json(asked, piece);
  return data_event(event_json(
      head, asked, choice_json(head, index, {{"content", piece.text}}, std::move(logprobs), "")));
}

std::string finish_event(const ReplyHead& head, const AskedAnswer& asked, std::int64_t index,
                         const std::string& finish_reason) {
  return data_event(event_json(
      head, asked, choice_json(head, index, OrderedJson::object(), nullptr, finish_reason)));
}

std::string usage_event(const ReplyHead& head, const ReplyParts& parts) {
  OrderedJson event = head_json(head, "chat.completion.chunk");
  event["choices"] = OrderedJson::array();
  event["usage"] = parts.usage;
  if (!parts.own.is_null()) event["vlm"] = parts.own;
  if (!parts.timings.is_null()) event["timings"] = parts.timings;
  return data_event(event);
}

std::string ChatWriter::whole(const ReplyParts& parts) {
  return whole_reply(head_, asked_, parts);
}

std::string ChatWriter::begin() {
  std::string events;
  for (std::int64_t i = 0; head_.is_chat && i < asked_.sampling.n; ++i) {
    events += role_event(head_, asked_, i);
  }
  return events;
}

std::string ChatWriter::piece(std::int64_t index, const ReplyChoice& more) {
  ReplyChoice placed = more;
  std::int64_t& characters = characters_[index];
  placed.characters_before = characters;
  characters += count_characters(more.text);
  return piece_event(head_, asked_, index, placed);
}

std::string ChatWriter::end(const ReplyParts& parts) {
  std::string events;
  for (std::size_t i = 0; i < parts.choices.size(); ++i) {
    events +=
        finish_event(head_, asked_, static_cast<std::int64_t>(i), parts.choices[i].finish_reason);
  }
  const bool has_more = asked_.has_usage_chunk || !parts.own.is_null() || !parts.timings.is_null();
  if (has_more) events += usage_event(head_, parts);
  return events + kDoneEvent;
}

std::string ChatWriter::fail(const ApiError& error) {
  return data_event(to_json(error)) + kDoneEvent;
}

}  // namespace vlm::infer
