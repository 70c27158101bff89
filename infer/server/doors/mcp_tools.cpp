#include "infer/server/doors/mcp_tools.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "infer/server/api/body_reader.h"
#include "infer/server/doors/inner_ask.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostQuestionBytes = 1 << 20;
constexpr std::size_t kLeastBase64 = 64;  // shorter texts are paths

OrderedJson text_schema(const std::string& description) {
  return {{"type", "string"}, {"description", description}};
}

OrderedJson list_schema(const OrderedJson& items, int least, const std::string& description) {
  return {{"type", "array"}, {"items", items}, {"minItems", least}, {"description", description}};
}

OrderedJson object_schema(const OrderedJson& properties, const OrderedJson& required) {
  return {{"type", "object"},
          {"properties", properties},
          {"required", required},
          {"additionalProperties", false}};
}

OrderedJson images_schema() {
  return list_schema({{"type", "string"}}, 1,
                     "Pictures: paths below the allowed folder, data URIs, or base64");
}

OrderedJson answer_schema() {
  return {{"type", "object"},
          {"description", "JSON schema that the answer has to satisfy; left out: any text"}};
}

OrderedJson seconds_schema(const std::string& description) {
  return {{"type", "number"}, {"minimum", 0}, {"description", description}};
}

OrderedJson text_result_schema() {
  const OrderedJson text = text_schema("The answer");
  const OrderedJson json = {{"description", "The answer parsed, where a schema was given"}};
  return object_schema({{"text", text}, {"json", json}}, {"text"});
}

OrderedJson tool(const std::string& name, const std::string& title, const std::string& description,
                 const OrderedJson& input, const OrderedJson& output) {
  return {{"name", name},
          {"title", title},
          {"description", description},
          {"inputSchema", input},
          {"outputSchema", output},
          {"annotations", {{"readOnlyHint", true}, {"openWorldHint", false}}}};
}

OrderedJson look_tool() {
  const OrderedJson properties = {{"images", images_schema()},
                                  {"question", text_schema("What to find out")},
                                  {"schema", answer_schema()}};
  return tool("look", "Look at pictures",
              "Answers a question about one or several pictures, as text or as JSON.",
              object_schema(properties, {"images", "question"}), text_result_schema());
}

OrderedJson choose_tool() {
  const OrderedJson choices = list_schema({{"type", "string"}}, 2, "Answers to choose from");
  const OrderedJson properties = {{"images", images_schema()},
                                  {"question", text_schema("What to decide")},
                                  {"choices", choices}};
  const OrderedJson probabilities = {{"type", "object"},
                                     {"additionalProperties", {{"type", "number"}}},
                                     {"description", "Of each choice; together 1"}};
  const OrderedJson result = {{"choice", text_schema("The likeliest")},
                              {"probabilities", probabilities}};
  return tool("choose", "Choose an answer about pictures",
              "Says which of the given answers fits the pictures best, with the probability of "
              "each.",
              object_schema(properties, {"images", "question", "choices"}),
              object_schema(result, {"choice", "probabilities"}));
}

OrderedJson watch_tool() {
  const OrderedJson times = list_schema(seconds_schema("Seconds"), 1,
                                        "Moments to look at; left out: spread over the clip");
  const OrderedJson properties = {
      {"clip", text_schema("A video: a path below the allowed folder, a data URI, or base64")},
      {"question", text_schema("What to find out")},
      {"times", times},
      {"start", seconds_schema("Second from which the clip is looked at")},
      {"end", seconds_schema("Second up to which it is")},
      {"schema", answer_schema()}};
  return tool("watch", "Watch a clip",
              "Answers a question about a video clip, or about moments of it.",
              object_schema(properties, {"clip", "question"}), text_result_schema());
}

// A path becomes a file:// URL; base64 and URLs stay.
std::string to_media_url(const std::string& medium) {
  const std::string scheme = ascii_lower(medium.substr(0, 8));
  const bool is_url = scheme.starts_with("data:") || medium.find("://") != std::string::npos;
  const bool is_base64 =
      medium.size() >= kLeastBase64 && std::all_of(medium.begin(), medium.end(), [](char c) {
        return is_letter(c) || is_digit(c) ||
               std::string_view("+/-_=\r\n").find(c) != std::string_view::npos;
      });
  if (is_url || is_base64) return medium;
  std::string url = "file://";
  for (const char c : medium) url += c == '%' ? std::string("%25") : std::string(1, c);
  return url;
}

std::string needed_text(BodyReader& arguments, const std::string& name) {
  const OrderedJson* value = arguments.find(name);
  if (!value) throw missing_value(name, "a text");
  if (!value->is_string()) throw bad_value(name, *value, "a text");
  return *value;
}

OrderedJson image_parts(BodyReader& arguments) {
  const OrderedJson* images = arguments.array("images");
  OrderedJson parts = OrderedJson::array();
  if (!images || images->empty()) throw missing_value("images", "a list of pictures");
  for (std::size_t i = 0; i < images->size(); ++i) {
    const OrderedJson& image = (*images)[i];
    if (!image.is_string()) throw bad_value(concat("images[", i, "]"), image, "a path or base64");
    const OrderedJson url = {{"url", to_media_url(image)}};
    parts.push_back({{"type", "image_url"}, {"image_url", url}});
  }
  return parts;
}

OrderedJson clip_parts(BodyReader& arguments) {
  OrderedJson clip = {{"url", to_media_url(needed_text(arguments, "clip"))}};
  for (const char* name : {"times", "start", "end"}) {
    if (const OrderedJson* value = arguments.find(name)) clip[name] = *value;
  }
  return OrderedJson::array({{{"type", "video_url"}, {"video_url", clip}}});
}

}  // namespace

OrderedJson list_mcp_tools() {
  return OrderedJson::array({look_tool(), choose_tool(), watch_tool()});
}

bool is_mcp_tool(const std::string& name) {
  return name == "look" || name == "choose" || name == "watch";
}

OrderedJson to_mcp_question(const std::string& tool_name, const OrderedJson& json) {
  BodyReader arguments(json, "");
  OrderedJson body;
  OrderedJson parts = tool_name == "watch" ? clip_parts(arguments) : image_parts(arguments);
  const auto question = arguments.text("question", kMostQuestionBytes);
  if (!question || question->empty()) throw missing_value("question", "a text");
  if (tool_name == "choose") {
    const OrderedJson* choices = arguments.array("choices");
    if (!choices) throw missing_value("choices", "a list of answers");
    body["structured_outputs"] = {{"choice", *choices}};
  } else if (const OrderedJson* schema = arguments.object("schema")) {
    body["structured_outputs"] = {{"json", *schema}};
  }
  const std::vector<std::string> unknown = arguments.rest();
  if (!unknown.empty()) {
    throw unsupported(shown(unknown[0]), "unknown argument", "tools/list names them");
  }
  parts.push_back({{"type", "text"}, {"text", *question}});
  body["messages"] = OrderedJson::array({{{"role", "user"}, {"content", parts}}});
  return body;
}

OrderedJson failed_tool_result(const std::string& message) {
  const OrderedJson content = {{"type", "text"}, {"text", message}};
  return {{"content", OrderedJson::array({content})}, {"isError", true}};
}

OrderedJson to_tool_result(const std::string& tool_name, const OrderedJson& arguments,
                           const WebReply& reply) {
  if (reply.status != 200) return failed_tool_result(message_of(reply));
  const OrderedJson body = OrderedJson::parse(reply.body);
  const OrderedJson& choice = body["choices"][0];
  const std::string text = choice["message"]["content"];
  OrderedJson structured = {{"text", text}};
  if (tool_name == "choose") {
    structured = {{"choice", text}, {"probabilities", body["vlm"]["probabilities"]}};
  } else if (arguments.contains("schema") && !arguments["schema"].is_null()) {
    OrderedJson parsed = OrderedJson::parse(text, nullptr, false);
    if (parsed.is_discarded()) {
      return failed_tool_result(concat("the answer is no whole JSON (it ended by '",
                                       choice["finish_reason"].get<std::string>(), "'): ", text));
    }
    structured["json"] = std::move(parsed);
  }
  const OrderedJson content = {{"type", "text"}, {"text", text}};
  return {{"content", OrderedJson::array({content})},
          {"structuredContent", structured},
          {"isError", false}};
}

}  // namespace vlm::infer
