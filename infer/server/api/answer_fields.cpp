#include "infer/server/api/answer_fields.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostName = 256;
constexpr std::size_t kMostStops = 4, kMostBadWords = 64;
constexpr std::int64_t kMostTokens = 1 << 24;  // that a client may name; more than any context

// About OpenAI's service, or hints: they mean nothing here.
const std::vector<std::string> kAccepted = {"user",
                                            "metadata",
                                            "store",
                                            "service_tier",
                                            "safety_identifier",
                                            "prompt_cache_key",
                                            "moderation",
                                            "prompt_cache_retention",
                                            "prompt_cache_options",
                                            "verbosity",
                                            "parallel_tool_calls",
                                            "reasoning_effort"};

void read_max_tokens(BodyReader& body, Sampling& sampling) {
  const auto newer = body.integer("max_completion_tokens", -1, kMostTokens);
  const auto older = body.integer("max_tokens", -1, kMostTokens);
  if (newer && older && *newer != *older) {
    throw bad_value(body.path("max_tokens"), *older,
                    concat("the same as max_completion_tokens, ", *newer), "give one of them");
  }
  const auto given = newer ? newer : older;
  if (given && *given == 0) {
    throw bad_value(body.path(newer ? "max_completion_tokens" : "max_tokens"), std::string("0"),
                    "1 or more, or -1 for all that the context holds");
  }
  if (given && *given > 0) sampling.max_tokens = given;
}

Sampling read_sampling(BodyReader& body, const ApiLimits& limits) {
  constexpr auto kLeast = std::numeric_limits<std::int64_t>::min();
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  Sampling sampling;
  read_max_tokens(body, sampling);
  sampling.temperature = body.number("temperature", 0, 2);
  sampling.top_p = body.number("top_p", 0, 1);
  sampling.min_p = body.number("min_p", 0, 1);
  sampling.typical_p = body.number("typical_p", 0, 1);
  sampling.top_k = body.integer("top_k", -1, kMostTokens);
  sampling.repetition_penalty = body.number("repetition_penalty", 0.01, 100);
  sampling.no_repeat_ngram_size = body.integer("no_repeat_ngram_size", 0, 1024);
  sampling.min_tokens = body.integer("min_tokens", 0, kMostTokens);
  sampling.num_beams = body.integer("num_beams", 1, limits.max_n);
  sampling.length_penalty = body.number("length_penalty", -100, 100);
  sampling.seed = body.integer("seed", kLeast, kMost);
  sampling.n = body.integer("n", 1, limits.max_n).value_or(1);
  sampling.stop = body.texts("stop", kMostStops);
  sampling.bad_words = body.texts("bad_words", kMostBadWords);
  if (sampling.length_penalty && sampling.num_beams.value_or(1) == 1) {
    throw unsupported(body.path("length_penalty"), "length_penalty has no effect without beams",
                      "give num_beams");
  }
  return sampling;
}

void read_logprobs(BodyReader& body, AskedAnswer& asked) {
  asked.has_logprobs = body.boolean("logprobs").value_or(false);
  asked.top_logprobs = body.integer("top_logprobs", 0, 20).value_or(0);
  if (asked.top_logprobs > 0 && !asked.has_logprobs) {
    throw bad_value(body.path("top_logprobs"), asked.top_logprobs, "logprobs: true beside it");
  }
}

void read_stream(BodyReader& body, AskedAnswer& asked) {
  asked.is_streamed = body.boolean("stream").value_or(false);
  const OrderedJson* options = body.object("stream_options");
  if (!options) return;
  if (!asked.is_streamed) {
    throw bad_value(body.path("stream_options"), *options, "stream: true beside it");
  }
  BodyReader reader(*options, body.path("stream_options"));
  asked.has_usage_chunk = reader.boolean("include_usage").value_or(false);
  reader.boolean("include_obfuscation");
}

// Fields that would change the answer, with the values that don't.
void refuse_unsupported(BodyReader& body) {
  for (const char* name : {"frequency_penalty", "presence_penalty"}) {
    if (body.number(name, -2, 2).value_or(0) != 0) {
      throw unsupported(body.path(name), concat(name, " is not supported"),
                        "repetition_penalty and no_repeat_ngram_size are");
    }
  }
  const OrderedJson* bias = body.object("logit_bias");
  if (bias && !bias->empty()) {
    throw unsupported(body.path("logit_bias"), "logit_bias is not supported", "bad_words is");
  }
  for (const char* name : {"tools", "functions"}) {
    const OrderedJson* tools = body.find(name);
    if (tools && !(tools->is_array() && tools->empty())) {
      throw unsupported(body.path(name), "this model calls no tools");
    }
  }
  for (const char* name : {"tool_choice", "function_call"}) {
    const OrderedJson* choice = body.find(name);
    if (choice && *choice != "none" && *choice != "auto") {
      throw unsupported(body.path(name), "this model calls no tools");
    }
  }
  for (const char* name : {"audio", "prediction", "web_search_options"}) {
    if (body.find(name)) throw unsupported(body.path(name), concat(name, " is not supported"));
  }
  const OrderedJson* modalities = body.find("modalities");
  if (modalities && *modalities != OrderedJson::array({"text"})) {
    throw unsupported(body.path("modalities"), "this model writes text alone");
  }
}

void read_own_fields(BodyReader& body, AskedAnswer& asked) {
  const OrderedJson* own = body.object("vlm");
  if (!own) return;
  BodyReader reader(*own, body.path("vlm"));
  asked.has_confidence = reader.boolean("confidence").value_or(false);
  asked.has_timings = reader.boolean("timings").value_or(false);
  for (const std::string& name : reader.rest()) {
    throw unsupported(reader.path(name), "unknown field", "there are confidence and timings");
  }
}

void list_ignored(const BodyReader& body, const ApiLimits& limits, AskedAnswer& asked) {
  asked.ignored = body.rest();
  if (!limits.refuses_unknown || asked.ignored.empty()) return;
  const std::vector<std::string> known(body.known().begin(), body.known().end());
  const auto nearest = nearest_name(asked.ignored[0], known);
  throw unsupported(shown(asked.ignored[0]), "unknown field",
                    nearest ? concat("did you mean ", *nearest, "?") : "");
}

}  // namespace

AskedAnswer read_answer_fields(BodyReader& body, const ApiLimits& limits) {
  AskedAnswer asked;
  asked.model = body.text("model", kMostName).value_or("");
  asked.sampling = read_sampling(body, limits);
  asked.constraint = read_constraint(body, limits);
  read_logprobs(body, asked);
  read_stream(body, asked);
  refuse_unsupported(body);
  read_own_fields(body, asked);
  body.accept(kAccepted);
  list_ignored(body, limits, asked);
  const bool is_choice = asked.constraint.kind == Constraint::Kind::kChoice;
  if (is_choice && asked.sampling.n > 1) {
    throw bad_value(body.path("n"), asked.sampling.n, "1, as choices have one answer");
  }
  return asked;
}

}  // namespace vlm::infer
