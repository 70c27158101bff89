// Every field of a request: what is taken, what is refused, and in which words.
#include "infer/server/api/chat_request.h"

#include <nlohmann/json.hpp>

#include "infer/server/api/api_error.h"
#include "infer/server/api/body_reader.h"
#include "tests/server/bodies.h"
#include "tests/support/catch.h"
#include "tests/support/thrown.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

TEST_CASE("a plain request: nothing but what was asked") {
  const ChatRequest request = read(chat_body({}));
  CHECK(request.messages.size() == 1);
  CHECK(request.messages[0].role == "user");
  REQUIRE(request.messages[0].content.size() == 1);
  CHECK(request.messages[0].content[0].type == "text");
  CHECK(request.messages[0].content[0].text == "hello");
  const AskedAnswer& asked = request.asked;
  CHECK(asked.model == "");
  CHECK(asked.sampling.n == 1);
  CHECK_FALSE(asked.sampling.max_tokens);
  CHECK_FALSE(asked.sampling.temperature);
  CHECK_FALSE(asked.sampling.seed);
  CHECK_FALSE(asked.is_streamed);
  CHECK_FALSE(asked.has_logprobs);
  CHECK(asked.constraint.kind == Constraint::Kind::kNone);
  CHECK(asked.ignored.empty());
}

TEST_CASE("null is the same as absent, for every field") {
  Json fields;
  for (const char* name : {"model",
                           "max_tokens",
                           "max_completion_tokens",
                           "temperature",
                           "top_p",
                           "n",
                           "stop",
                           "seed",
                           "logprobs",
                           "top_logprobs",
                           "stream",
                           "stream_options",
                           "response_format",
                           "structured_outputs",
                           "tools",
                           "tool_choice",
                           "functions",
                           "function_call",
                           "frequency_penalty",
                           "presence_penalty",
                           "logit_bias",
                           "user",
                           "audio",
                           "prediction",
                           "modalities",
                           "top_k",
                           "min_p",
                           "typical_p",
                           "repetition_penalty",
                           "no_repeat_ngram_size",
                           "min_tokens",
                           "bad_words",
                           "num_beams",
                           "length_penalty",
                           "continue_final_message",
                           "vlm",
                           "web_search_options",
                           "whatever"}) {
    fields[name] = nullptr;
  }
  const ChatRequest request = read(chat_body(fields));
  CHECK(request.asked.ignored.empty());
  CHECK(request.asked.sampling.n == 1);
}

TEST_CASE("values arrive") {
  const ChatRequest request =
      read(chat_body({{"model", "m"},
                      {"max_completion_tokens", 7},
                      {"max_tokens", 7.0},
                      {"temperature", 0.5},
                      {"top_p", 1},
                      {"top_k", -1},
                      {"min_p", 0.1},
                      {"typical_p", 0.9},
                      {"n", 3},
                      {"stop", {"a", "b"}},
                      {"seed", -5},
                      {"logprobs", true},
                      {"top_logprobs", 2},
                      {"stream", true},
                      {"stream_options", {{"include_usage", true}, {"include_obfuscation", false}}},
                      {"repetition_penalty", 1.5},
                      {"no_repeat_ngram_size", 2},
                      {"min_tokens", 1},
                      {"bad_words", "c"},
                      {"num_beams", 2},
                      {"length_penalty", -1},
                      {"vlm", {{"confidence", true}, {"timings", true}}}}));
  const Sampling& sampling = request.asked.sampling;
  CHECK(request.asked.model == "m");
  CHECK(sampling.max_tokens == 7);
  CHECK(sampling.temperature == 0.5);
  CHECK(sampling.top_p == 1.0);
  CHECK(sampling.top_k == -1);
  CHECK(sampling.min_p == 0.1);
  CHECK(sampling.typical_p == 0.9);
  CHECK(sampling.n == 3);
  CHECK(sampling.stop == std::vector<std::string>{"a", "b"});
  CHECK(sampling.seed == -5);
  CHECK(request.asked.has_logprobs);
  CHECK(request.asked.top_logprobs == 2);
  CHECK(request.asked.is_streamed);
  CHECK(request.asked.has_usage_chunk);
  CHECK(sampling.repetition_penalty == 1.5);
  CHECK(sampling.no_repeat_ngram_size == 2);
  CHECK(sampling.min_tokens == 1);
  CHECK(sampling.bad_words == std::vector<std::string>{"c"});
  CHECK(sampling.num_beams == 2);
  CHECK(sampling.length_penalty == -1.0);
  CHECK(request.asked.has_confidence);
  CHECK(request.asked.has_timings);
  CHECK_FALSE(read(chat_body({{"max_tokens", -1}})).asked.sampling.max_tokens);
  CHECK(read(chat_body({{"stop", Json::array()}})).asked.sampling.stop.empty());
  CHECK(read(chat_body({{"seed", INT64_MIN}})).asked.sampling.seed == INT64_MIN);
}

TEST_CASE("what is about OpenAI's service, or neutral, is accepted in silence") {
  const Json fields = {{"user", "u"},
                       {"metadata", {{"a", "b"}}},
                       {"store", false},
                       {"service_tier", "auto"},
                       {"safety_identifier", "s"},
                       {"prompt_cache_key", "k"},
                       {"prompt_cache_retention", "24h"},
                       {"parallel_tool_calls", true},
                       {"reasoning_effort", "low"},
                       {"verbosity", "low"},
                       {"modalities", {"text"}},
                       {"tools", Json::array()},
                       {"tool_choice", "none"},
                       {"functions", Json::array()},
                       {"frequency_penalty", 0},
                       {"presence_penalty", 0.0},
                       {"logit_bias", Json::object()},
                       {"response_format", {{"type", "text"}}}};
  CHECK(read(chat_body(fields)).asked.ignored.empty());
}

TEST_CASE("names that nobody knows are listed, or refused with the nearest") {
  CHECK(read(chat_body({{"temprature", 1}, {"zzz", 2}})).asked.ignored ==
        std::vector<std::string>{"temprature", "zzz"});
  ApiLimits strict;
  strict.refuses_unknown = true;
  CHECK(refusal({{"temprature", 1}}, "hello", strict) ==
        "400 unsupported_parameter temprature: unknown field (did you mean temperature?)");
  CHECK(refusal({{"qqqqqq", 1}}, "hello", strict) ==
        "400 unsupported_parameter qqqqqq: unknown field");
}

TEST_CASE("values out of range name the field, what came and what is wanted") {
  const std::vector<std::pair<Json, std::string>> cases = {
      {{{"temperature", 2.5}},
       "400 invalid_value temperature: unusable value: got number 2.5, wanted a number from 0 to "
       "2"},
      {{{"temperature", "1"}},
       "400 invalid_value temperature: unusable value: got string \"1\", wanted a number from 0 to "
       "2"},
      {{{"top_p", -0.1}},
       "400 invalid_value top_p: unusable value: got number -0.1, wanted a number from 0 to 1"},
      {{{"n", 0}},
       "400 invalid_value n: unusable value: got number 0, wanted a whole number from 1 to 8"},
      {{{"n", 9}},
       "400 invalid_value n: unusable value: got number 9, wanted a whole number from 1 to 8"},
      {{{"n", 1.5}},
       "400 invalid_value n: unusable value: got number 1.5, wanted a whole number from 1 to 8"},
      {{{"n", true}},
       "400 invalid_value n: unusable value: got boolean true, wanted a whole number from 1 to 8"},
      {{{"max_tokens", 0}},
       "400 invalid_value max_tokens: unusable value: got 0, wanted 1 or more, or -1 for all that "
       "the "
       "context holds"},
      {{{"max_tokens", 1}, {"max_completion_tokens", 2}},
       "400 invalid_value max_tokens: unusable value: got number 1, wanted the same as "
       "max_completion_tokens, 2 (give one of them)"},
      {{{"top_logprobs", 2}},
       "400 invalid_value top_logprobs: unusable value: got number 2, wanted logprobs: true beside "
       "it"},
      {{{"top_logprobs", 21}, {"logprobs", true}},
       "400 invalid_value top_logprobs: unusable value: got number 21, wanted a whole number from "
       "0 to "
       "20"},
      {{{"stream_options", {{"include_usage", true}}}},
       "400 invalid_value stream_options: unusable value: got object, wanted stream: true beside "
       "it"},
      {{{"stream", "yes"}},
       "400 invalid_value stream: unusable value: got string \"yes\", wanted true or false"},
      {{{"stop", {"a", "b", "c", "d", "e"}}},
       "400 invalid_value stop: unusable value: got array, wanted a text or up to 4 of them, none "
       "empty or over 4096 bytes"},
      {{{"stop", ""}},
       "400 invalid_value stop: unusable value: got string \"\", wanted a text or up to 4 of them, "
       "none empty or over 4096 bytes"},
      {{{"model", std::string(300, 'm')}},
       "400 invalid_value model: unusable value: got 300 bytes, wanted at most 256 bytes"},
      {{{"tools", {{{"type", "function"}}}}},
       "400 unsupported_parameter tools: this model calls no tools"},
      {{{"tool_choice", "required"}},
       "400 unsupported_parameter tool_choice: this model calls no tools"},
      {{{"functions", {{{"name", "f"}}}}},
       "400 unsupported_parameter functions: this model calls no tools"},
      {{{"frequency_penalty", 0.5}},
       "400 unsupported_parameter frequency_penalty: frequency_penalty is not supported "
       "(repetition_penalty and no_repeat_ngram_size are)"},
      {{{"logit_bias", {{"5", 1}}}},
       "400 unsupported_parameter logit_bias: logit_bias is not supported (bad_words is)"},
      {{{"audio", Json::object()}}, "400 unsupported_parameter audio: audio is not supported"},
      {{{"modalities", {"text", "audio"}}},
       "400 unsupported_parameter modalities: this model writes text alone"},
      {{{"length_penalty", 2}},
       "400 unsupported_parameter length_penalty: length_penalty has no effect without beams (give "
       "num_beams)"},
      {{{"vlm", {{"konfidence", true}}}},
       "400 unsupported_parameter vlm.konfidence: unknown field (there are confidence and "
       "timings)"},
      {{{"response_format", {{"type", "xml"}}}},
       "400 invalid_value response_format.type: unusable value: got xml, wanted text, json_object "
       "or "
       "json_schema"},
      {{{"response_format", {{"type", "json_schema"}}}},
       "400 invalid_value response_format.schema: unusable value: got nothing, wanted a JSON "
       "schema"},
      {{{"structured_outputs", {{"regex", "a"}, {"json_object", true}}}},
       "400 invalid_value structured_outputs: unusable value: got 2 kinds, wanted one of json, "
       "json_object, choice, regex, grammar"},
      {{{"structured_outputs", {{"choice", {"a"}}}}},
       "400 invalid_value structured_outputs.choice: unusable value: got array, wanted two or more "
       "texts, all different"},
      {{{"structured_outputs", {{"choice", {"a", "b"}}}}, {"n", 2}},
       "400 invalid_value n: unusable value: got number 2, wanted 1, as choices have one answer"},
      {{{"structured_outputs", {{"choice", {"a", "b"}}}}, {"top_logprobs", 1}},
       "400 invalid_value top_logprobs: unusable value: got number 1, wanted logprobs: true beside "
       "it"}};
  for (const auto& [fields, text] : cases) CHECK(refusal(fields) == text);
}

TEST_CASE("constraints of both kinds") {
  const Json schema = {{"type", "object"}};
  const auto constraint = [](const Json& fields) {
    return read(chat_body(fields)).asked.constraint;
  };
  using Kind = Constraint::Kind;
  const Constraint openai = constraint(
      {{"response_format",
        {{"type", "json_schema"}, {"json_schema", {{"name", "n"}, {"schema", schema}}}}}});
  CHECK(openai.kind == Kind::kJsonSchema);
  CHECK(openai.text == schema.dump());
  CHECK(openai.param == "response_format.json_schema.schema");
  const Constraint bare =
      constraint({{"response_format", {{"type", "json_schema"}, {"schema", schema}}}});
  CHECK(bare.kind == Kind::kJsonSchema);
  CHECK(constraint({{"response_format", {{"type", "json_object"}}}}).kind == Kind::kJsonObject);
  const Constraint vllm = constraint({{"structured_outputs", {{"json", schema.dump()}}}});
  CHECK(vllm.kind == Kind::kJsonSchema);
  CHECK(vllm.text == schema.dump());
  CHECK(constraint({{"structured_outputs", {{"regex", "a+"}}}}).text == "a+");
  CHECK(constraint({{"structured_outputs", {{"grammar", "g"}}}}).kind == Kind::kGrammar);
  CHECK(constraint({{"structured_outputs", {{"choice", {"yes", "no"}}}}}).choices ==
        std::vector<std::string>{"yes", "no"});
}

TEST_CASE("bodies: depth, twice the same key, broken UTF-8, no object") {
  const auto parsed = [](const std::string& body) { return refusal_of([&] { parse_body(body); }); };
  CHECK(parsed("") == "400 invalid_json the request has no body: wanted a JSON object");
  CHECK(parsed("[]") == "400 invalid_json the body is not an object: got array");
  CHECK(parsed("{\"a\":1,\"a\":2}") ==
        "400 invalid_json the body is no JSON that can be read: key given twice: got \"a\"");
  CHECK(parsed("{\"a\":").starts_with(
      "400 invalid_json the body is no JSON that can be read: not valid JSON: got parse error"));
  CHECK(parsed("{\"a\":\"\xff\"}").starts_with("400 invalid_json"));
  CHECK(parsed("{\"a\":\"\xed\xa0\x80\"}").starts_with("400 invalid_json"));
  CHECK(parsed("{} x").starts_with("400 invalid_json"));
  const auto nested = [](int levels) {
    return "{\"a\":" + std::string(static_cast<std::size_t>(levels), '[') +
           std::string(static_cast<std::size_t>(levels), ']') + "}";
  };
  CHECK(parsed(nested(63)) == "accepted");
  CHECK(parsed(nested(64)) ==
        "400 invalid_json the body is nested too deeply: wanted at most 64 levels");
  CHECK(parsed(nested(100'000)).starts_with("400 invalid_json"));
}

TEST_CASE("what a client wrote is cut in messages") {
  const std::string long_text(100'000, 'x');
  const std::string message =
      refusal({{"response_format", {{"type", "ab"}}}, {"model", long_text}});
  CHECK(message.size() < 300);
  CHECK(refusal({}, {{{"type", long_text}}}).size() < 400);
  const std::string umlauts = [] {
    std::string text;
    for (int i = 0; i < 200; ++i) text += "\xc3\xa4";
    return text;
  }();
  CHECK(shown(umlauts).size() <= 200);
  CHECK(shown(umlauts).ends_with("\xc3\xa4..."));
}

TEST_CASE("plain completions: a text, and no chat fields") {
  const auto completion = [](const Json& body) { return read_completion_request(body, {}); };
  const CompletionRequest request =
      completion({{"prompt", "Once"}, {"max_tokens", 3}, {"echo", false}, {"best_of", 1}});
  CHECK(request.prompt == "Once");
  CHECK(request.asked.sampling.max_tokens == 3);
  CHECK(request.asked.ignored.empty());
  const auto refused = [&](const Json& body) { return refusal_of([&] { completion(body); }); };
  CHECK(refused(Json::object()) ==
        "400 invalid_value prompt: unusable value: got string \"\", wanted a text");
  CHECK(refused({{"prompt", {"a", "b"}}}) ==
        "400 invalid_value prompt: unusable value: got array, wanted a text");
  CHECK_FALSE(request.asked.has_logprobs);
  CHECK_FALSE(completion({{"prompt", "a"}, {"logprobs", false}}).asked.has_logprobs);
  const CompletionRequest none = completion({{"prompt", "a"}, {"logprobs", 0}});
  CHECK(none.asked.has_logprobs);
  CHECK(none.asked.top_logprobs == 0);
  CHECK(completion({{"prompt", "a"}, {"logprobs", 5}}).asked.top_logprobs == 5);
  CHECK(
      refused({{"prompt", "a"}, {"logprobs", 21}}) ==
      "400 invalid_value logprobs: unusable value: got number 21, wanted a whole number from 0 to "
      "20");
  CHECK(refused({{"prompt", "a"}, {"echo", true}}) ==
        "400 unsupported_parameter echo: echo is not supported");
}

}  // namespace
}  // namespace vlm::infer
