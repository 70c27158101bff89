// OpenAI's Responses without state: requests, replies and the events of a stream.
#include <nlohmann/json.hpp>

#include "infer/server/api/response_reply.h"
#include "tests/server/refusals.h"
#include "tests/server/served.h"

namespace vlm::infer {
namespace {

const std::string kResponses = "/v1/responses";

std::string response_refusal(const Json& body) {
  return refusal_of([&] { read_response_request(body, {}); });
}

TEST_CASE("a response's input becomes a chat") {
  const ChatRequest request = read_response_request(
      Json{{"instructions", "Be brief."},
           {"input",
            {{{"role", "user"}, {"content", "a"}},
             {{"type", "message"},
              {"role", "assistant"},
              {"content", {{{"type", "output_text"}, {"text", "b"}}}}},
             {{"role", "user"},
              {"content",
               {{{"type", "input_image"}, {"image_url", shape_uri("shape_049")}, {"detail", "low"}},
                {{"type", "input_text"}, {"text", "c"}}}}}}},
           {"max_output_tokens", 5},
           {"temperature", 0},
           {"include", {"message.output_text.logprobs"}},
           {"store", true},
           {"text",
            {{"format",
              {{"type", "json_schema"}, {"name", "n"}, {"schema", {{"type", "object"}}}}}}}},
      {});
  REQUIRE(request.messages.size() == 4);
  CHECK(request.messages[0].role == "system");
  CHECK(request.messages[2].content[0].text == "b");
  REQUIRE(request.media.size() == 1);
  CHECK(request.media[0].medium.is_whole);
  CHECK(request.media[0].param == "input[2].content[0].image_url");
  CHECK(request.asked.sampling.max_tokens == 5);
  CHECK(request.asked.has_logprobs);
  CHECK(request.asked.constraint.kind == Constraint::Kind::kJsonSchema);
  CHECK(request.asked.constraint.param == "text.format.schema");
  CHECK(request.asked.ignored.empty());
}

TEST_CASE("what needs a memory, or tools, is refused") {
  CHECK(response_refusal({{"input", "a"}, {"previous_response_id", "resp_1"}}) ==
        "400 unsupported_parameter previous_response_id: previous_response_id needs a server that "
        "remembers (send the whole conversation as input)");
  CHECK(response_refusal({{"input", "a"}, {"background", true}}) ==
        "400 unsupported_parameter background: responses are not kept");
  CHECK(response_refusal({{"input", "a"}, {"truncation", "auto"}}) ==
        "400 unsupported_parameter truncation: nothing of the input is left out");
  CHECK(response_refusal({{"input", "a"}, {"tools", {{{"type", "function"}}}}}) ==
        "400 unsupported_parameter tools: this model calls no tools");
  CHECK(response_refusal({{"input", {{{"type", "function_call_output"}, {"output", "x"}}}}}) ==
        "400 invalid_value input[0].type: unusable value: got string \"function_call_output\", "
        "wanted message");
  CHECK(response_refusal({{"temperature", 1}}) ==
        "400 invalid_value input: unusable value: got null, wanted a list of messages");
  CHECK(response_refusal({{"input", {{{"role", "assistant"}, {"content", "x"}}}}}) ==
        "400 invalid_value input: unusable value: got a last turn of the assistant's, wanted a "
        "user's");
}

Json asking(const std::string& question, const Json& fields = Json::object()) {
  Json body = {
      {"input", Json::array({{{"role", "user"},
                              {"content",
                               {{{"type", "input_image"}, {"image_url", shape_uri("shape_049")}},
                                {{"type", "input_text"}, {"text", question}}}}}})}};
  body.update(fields);
  return body;
}

TEST_CASE("a response holds the chat's answer") {
  const Served served;
  const std::string question = "what shape is in the image?";
  const OrderedJson chat = served.ask(shape_body(question));
  const OrderedJson reply = served.ask(asking(question, {{"top_logprobs", 2}}), kResponses);
  CHECK(reply["object"] == "response");
  CHECK(reply["id"].get<std::string>().starts_with("resp_"));
  CHECK(reply["status"] == "completed");
  CHECK(reply["incomplete_details"].is_null());
  const OrderedJson& item = reply["output"][0];
  CHECK(item["type"] == "message");
  CHECK(item["content"][0]["text"] == content_of(chat));
  CHECK(item["content"][0]["logprobs"][0]["top_logprobs"].size() == 2);
  CHECK(reply["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]);
  CHECK(reply["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]);
  const OrderedJson cut =
      served.ask(asking(question, {{"min_tokens", 50}, {"max_output_tokens", 3}}), kResponses);
  CHECK(cut["status"] == "incomplete");
  CHECK(cut["incomplete_details"]["reason"] == "max_output_tokens");
  CHECK(cut["max_output_tokens"] == 3);
}

TEST_CASE("a response's stream: numbered events, and no [DONE]") {
  const Served served;
  const std::string question = "what shape is in the image?";
  const std::string text =
      served.ask(asking(question), kResponses)["output"][0]["content"][0]["text"];
  std::string types, joined;
  std::int64_t number = 0;
  for (const std::string& event : served.stream(asking(question), kResponses)) {
    const OrderedJson json = OrderedJson::parse(event);
    CHECK(json["sequence_number"] == number++);
    const std::string type = json["type"];
    if (type == "response.output_text.delta") {
      joined += json["delta"];
      continue;
    }
    types += type.substr(9) + " ";
    if (type == "response.completed") {
      CHECK(json["response"]["output"][0]["content"][0]["text"] == text);
      CHECK(json["response"]["usage"]["output_tokens"] == 2);
    }
  }
  CHECK(joined == text);
  CHECK(types ==
        "created in_progress output_item.added content_part.added output_text.done "
        "content_part.done output_item.done completed ");
}

}  // namespace
}  // namespace vlm::infer
