#include "infer/items/openai_request.h"

#include <nlohmann/json.hpp>

#include "data/conversations/messages.h"
#include "infer/structured/answer_rule.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostTokens = 1 << 20;

Error bad_value(const std::string& key, const OrderedJson& got, const std::string& wanted) {
  return Error({.what = "unsupported value",
                .where = "body: " + key,
                .got = describe(Json(got)),
                .wanted = wanted});
}

void check_integer(const std::string& key, const OrderedJson& value, std::int64_t least,
                   std::int64_t most) {
  const bool fits = value.is_number_integer() && value.get<double>() >= double(least) &&
                    value.get<double>() <= double(most);
  if (!fits) throw bad_value(key, value, concat("a whole number from ", least, " to ", most));
}

void check_number(const std::string& key, const OrderedJson& value, double least, double most) {
  const bool fits =
      value.is_number() && value.get<double>() >= least && value.get<double>() <= most;
  if (!fits) throw bad_value(key, value, concat("a number from ", least, " to ", most));
}

OrderedJson to_stop_list(const OrderedJson& value) {
  const OrderedJson list = value.is_array() ? value : OrderedJson::array({value});
  for (const OrderedJson& text : list) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty() || list.size() > 4) {
      throw bad_value("stop", value, "a string or up to four of them");
    }
  }
  return list;
}

// Fields whose other values aren't there: the value that changes nothing passes.
bool is_neutral(const std::string& key, const OrderedJson& value) {
  static const OrderedJson kNeutral = {{"frequency_penalty", 0},
                                       {"presence_penalty", 0},
                                       {"logprobs", false},
                                       {"top_logprobs", 0},
                                       {"stream", false},
                                       {"logit_bias", OrderedJson::object()},
                                       {"tools", OrderedJson::array()},
                                       {"tool_choice", "none"},
                                       {"modalities", {"text"}}};
  const auto found = kNeutral.find(key);
  return found != kNeutral.end() && *found == value;
}

bool is_about_service(const std::string& key) {
  return key == "user" || key == "metadata" || key == "store" || key == "service_tier";
}

void read_field(const std::string& key, const OrderedJson& value, OrderedJson& overrides) {
  if (key == "max_tokens" || key == "max_completion_tokens") {
    check_integer(key, value, 1, kMostTokens);
    if (overrides.contains("max_new_tokens")) {
      throw Error({.what = "both max_tokens and max_completion_tokens", .where = "body"});
    }
    overrides["max_new_tokens"] = value;
  } else if (key == "temperature") {
    check_number(key, value, 0, 2);
    overrides[key] = value;
  } else if (key == "top_p") {
    check_number(key, value, 0, 1);
    overrides[key] = value;
  } else if (key == "n") {
    check_integer(key, value, 1, 128);
    overrides[key] = value;
  } else if (key == "seed") {
    check_integer(key, value, 0, std::int64_t{1} << 53);
    overrides[key] = value;
  } else if (key == "stop") {
    overrides[key] = to_stop_list(value);
  } else if (!is_neutral(key, value) && !is_about_service(key)) {
    throw Error({.what = "unsupported field of the request", .where = "body", .got = key});
  }
}

}  // namespace

bool is_openai_request(const Json& row) {
  return row.is_object() && row.contains("custom_id") && row.contains("body");
}

Entry parse_openai_request(const OrderedJson& row, const data::MediaRoot& root) {
  Entry entry;
  for (const auto& [key, value] : row.items()) {
    if (key == "custom_id" || key == "body" || value.is_null()) continue;
    const bool is_known =
        (key == "method" && value == "POST") || (key == "url" && value == "/v1/chat/completions");
    if (!is_known) {
      throw Error({.what = "unsupported request",
                   .where = key,
                   .got = describe(Json(value)),
                   .wanted = "method POST and url /v1/chat/completions"});
    }
  }
  const OrderedJson& body = row["body"];
  if (!body.is_object() || !body.contains("messages") || body["messages"].is_null()) {
    throw Error({.what = "no messages", .where = "body", .got = describe(Json(body))});
  }
  for (const auto& [key, written] : body.items()) {
    if (key == "messages" || written.is_null()) continue;
    if (is_rule_name(key)) {  // as it was written: properties have an order
      read_rule(key, written, "body: " + key);
      entry.overrides[key] = written;
      continue;
    }
    const OrderedJson value = plain_numbers(Json(written));
    if (key == "model") {
      if (!value.is_string()) throw bad_value(key, value, "a string");
      entry.columns["model"] = value;
      continue;
    }
    read_field(key, value, entry.overrides);
  }
  data::ConversationBuilder builder("", data::MediaPlaces{.root = root}, {});
  data::add_messages(builder, Json(body["messages"]), "messages");
  data::Sample sample = builder.finish();
  if (sample.messages.back().role != "user") {
    throw Error({.what = "the conversation doesn't end with a user's turn",
                 .got = concat("a last turn of the ", sample.messages.back().role, "'s")});
  }
  entry.messages = std::move(sample.messages);
  entry.media = std::move(sample.media);
  return entry;
}

}  // namespace vlm::infer
