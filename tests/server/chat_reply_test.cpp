// The JSON of answers, field by field and in order, whole and streamed.
#include "infer/server/api/chat_reply.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "infer/server/api/api_error.h"
#include "tests/support/catch.h"

namespace vlm::infer {
namespace {

const ReplyHead kHead{.id = "chatcmpl-1", .created = 7, .model = "m", .fingerprint = "f"};

PieceToken token(const std::string& bytes, double logprob, std::vector<TokenText> top = {}) {
  PieceToken token;
  token.bytes = bytes;
  token.logprob = logprob;
  token.top = std::move(top);
  return token;
}

RequestAnswer answer_of(std::int64_t prompt, std::vector<std::size_t> lengths) {
  RequestAnswer answer{.prompt_tokens = prompt, .media_tokens = 3, .cached_tokens = 2};
  for (const std::size_t length : lengths) {
    Generation generation;
    generation.ids.assign(length, 1);
    generation.logprobs.assign(length, -0.5);
    answer.generations.push_back(generation);
  }
  return answer;
}

TEST_CASE("a whole reply has OpenAI's fields in OpenAI's order") {
  ReplyParts parts{.choices = {{.text = "red \"\xc3\xa4\"\n", .finish_reason = "stop"},
                               {.text = "", .finish_reason = "length"}},
                   .usage = usage_of(answer_of(10, {2, 3}))};
  CHECK(whole_reply(kHead, {}, parts) ==
        R"({"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m",)"
        R"("system_fingerprint":"f","choices":[{"index":0,"message":{"role":"assistant",)"
        R"("content":"red \"ä\"\n","refusal":null},"logprobs":null,"finish_reason":"stop"},)"
        R"({"index":1,"message":{"role":"assistant","content":"","refusal":null},)"
        R"("logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":10,)"
        R"("completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":2,)"
        R"("image_tokens":3}}})");
}

TEST_CASE("a plain completion has texts") {
  ReplyHead head = kHead;
  head.is_chat = false;
  const ReplyParts parts{.choices = {{.text = "a", .finish_reason = "stop"}}, .usage = nullptr};
  CHECK(whole_reply(head, {}, parts) ==
        R"({"id":"chatcmpl-1","object":"text_completion","created":7,"model":"m",)"
        R"("system_fingerprint":"f","choices":[{"index":0,"text":"a","logprobs":null,)"
        R"("finish_reason":"stop"}],"usage":null})");
  CHECK(piece_event(head, {}, 0, {.text = "b"}) ==
        R"(data: {"id":"chatcmpl-1","object":"text_completion","created":7,"model":"m",)"
        R"("system_fingerprint":"f","choices":[{"index":0,"text":"b","logprobs":null,)"
        R"("finish_reason":null}]})"
        "\n\n");
}

TEST_CASE("log-probabilities: one entry a token, bytes exact, halves of characters shown as such") {
  const ReplyParts parts{
      .choices = {{.text = "\xc3\xa4",
                   .tokens = {token("\xc3", -0.25, {{1, -0.25, "\xc3"}, {2, -2, "a"}}),
                              token("\xa4", -INFINITY)},
                   .finish_reason = "stop"}},
      .usage = nullptr};
  const OrderedJson json = OrderedJson::parse(
      whole_reply(kHead, {.has_logprobs = true}, parts))["choices"][0]["logprobs"];
  CHECK(json.dump() ==
        "{\"content\":[{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.25,\"bytes\":[195],"
        "\"top_logprobs\":[{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.25,\"bytes\":[195]},"
        "{\"token\":\"a\",\"logprob\":-2.0,\"bytes\":[97]}]},"
        "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-9999.0,\"bytes\":[164],\"top_logprobs\":[]}],"
        "\"refusal\":null}");
}

TEST_CASE("events of a stream, byte for byte") {
  const std::string head =
      R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m",)"
      R"("system_fingerprint":"f","choices":[)";
  const AskedAnswer plain, counted{.has_usage_chunk = true};
  CHECK(role_event(kHead, plain, 1) ==
        head + R"({"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,)"
               R"("finish_reason":null}]})"
               "\n\n");
  CHECK(piece_event(kHead, counted, 0, {.text = "a\nb"}) ==
        head + R"({"index":0,"delta":{"content":"a\nb"},"logprobs":null,"finish_reason":null}],)"
               R"("usage":null})"
               "\n\n");
  CHECK(finish_event(kHead, plain, 0, "length") ==
        head + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]})"
               "\n\n");
  CHECK(usage_event(kHead, {.usage = {{"total_tokens", 3}}, .own = {{"a", 1}}}) ==
        head + R"(],"usage":{"total_tokens":3},"vlm":{"a":1}})"
               "\n\n");
  // No third reason is known to clients.
  CHECK(finish_event(kHead, plain, 0, "interrupted").find(R"("finish_reason":"length")") !=
        std::string::npos);
}

TEST_CASE("confidence and times, when they are asked for") {
  RequestAnswer answer = answer_of(10, {2});
  answer.first_token_entropy = 0.75;
  answer.vision_s = 1;
  answer.prefill_s = 0.5;
  answer.decode_s = 0.25;
  answer.queue_s = 2;
  CHECK(confidence_of(answer).dump() ==
        R"({"mean_logprob":-0.5,"min_logprob":-0.5,"first_token_entropy":0.75})");
  CHECK(confidence_of(answer_of(1, {1, 1})).size() == 2);
  CHECK(timings_of(answer).dump() ==
        R"({"prompt_n":8,"prompt_ms":1500.0,"cache_n":2,"predicted_n":2,"predicted_ms":250.0,)"
        R"("queue_ms":2000.0})");
}

TEST_CASE("errors have all four members, and what clients need to try again") {
  CHECK(to_json(bad_value("n", std::string("9"), "1 to 8")).dump() ==
        R"({"error":{"message":"n: unusable value: got 9, wanted 1 to 8",)"
        R"("type":"invalid_request_error","param":"n","code":"invalid_value"}})");
  const WebReply full = to_reply(queue_full(12));
  CHECK(full.status == 429);
  CHECK(full.body ==
        R"-({"error":{"message":"too many requests wait already (try again in 12 s)",)-"
        R"("type":"rate_limit_error","param":null,"code":"queue_full"}})");
  REQUIRE(full.headers.size() == 1);
  CHECK(full.headers[0].name == "Retry-After");
  CHECK(full.headers[0].value == "12");
  const WebReply internal = to_reply(internal_error("req-1"));
  CHECK(internal.status == 500);
  CHECK(internal.body == R"({"error":{"message":"the server failed; its log names request req-1",)"
                         R"("type":"server_error","param":null,"code":"internal"}})");
  CHECK(to_reply(shutting_down()).status == 503);
  ApiError context({.code = "context_length_exceeded", .param = "messages"}, {.what = "too long"});
  context.context = {.prompt_tokens = 9000, .context = 8192};
  CHECK(to_json(context).dump() ==
        R"({"error":{"message":"messages: too long","type":"invalid_request_error",)"
        R"("param":"messages","code":"context_length_exceeded","n_prompt_tokens":9000,)"
        R"("n_ctx":8192}})");
}

}  // namespace
}  // namespace vlm::infer
