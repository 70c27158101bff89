// Requests of OpenAI's batch format → entries, or errors.
#include "infer/items/openai_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/infer/items/entries.h"

namespace vlm::infer {
namespace {

std::string request(const std::string& fields, const std::string& picture = "p.png") {
  return R"({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", )" +
         fields +
         R"("messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, )"
         R"({"type": "image_url", "image_url": {"url": ")" +
         picture + R"("}}]}]}})";
}

TEST_CASE("OpenAI requests become entries with overrides, or errors") {
  const ScratchFolder folder;
  const std::string file = folder.write(
      "b.jsonl",
      request(R"("max_tokens": 5, "temperature": 0.5, "stop": "x", "n": 2, "user": "u", )"
              R"("top_p": 1, "seed": 3, "presence_penalty": 0, "tools": null, )",
              "file://a%20b.png") +
          "\n");
  const Entry entry = open_arguments({file})->at(0);
  CHECK(entry.error.empty());
  CHECK(entry.id == "a");
  CHECK(entry.overrides.dump() ==
        R"({"max_new_tokens":5,"temperature":0.5,"stop":["x"],"n":2,"top_p":1,"seed":3})");
  CHECK(entry.columns.dump() == R"({"model":"m"})");
  CHECK(entry.media[0].name == (folder.path() / "a b.png").string());
  REQUIRE(entry.messages.size() == 1);
  CHECK(entry.messages[0].content[1].type == "image");

  CHECK_THAT(error_of(request(R"("logprobs": true, )")),
             Contains("body: unsupported field of the request: got logprobs"));
  CHECK_THAT(
      error_of(request(R"("temperature": 3, )")),
      Contains("body: temperature: unsupported value: got number 3, wanted a number from 0 to 2"));
  CHECK_THAT(error_of(request(R"("max_tokens": 0, )")), Contains("wanted a whole number from 1"));
  CHECK_THAT(error_of(request(R"("max_tokens": 1, "max_completion_tokens": 1, )")),
             Contains("both max_tokens and max_completion_tokens"));
  CHECK_THAT(error_of(request(R"("stop": ["", "a"], )")),
             Contains("a string or up to four of them"));
  CHECK_THAT(error_of(request("", "../p.png")),
             Contains("file outside of the batch file's folder"));
  CHECK_THAT(error_of(request("", "/etc/p.png")),
             Contains("file outside of the batch file's folder"));
  CHECK_THAT(error_of(R"({"custom_id": "a", "url": "/v1/embeddings", "body": {"messages": []}})"),
             Contains("url: unsupported request: got string \"/v1/embeddings\""));
  CHECK_THAT(error_of(R"({"custom_id": "a", "body": {}})"), Contains("body: no messages"));
  CHECK_THAT(error_of(R"({"custom_id": "a", "body": null})"), Contains("body: no messages"));
  CHECK_THAT(error_of(R"({"custom_id": "a", "body": {"messages": null}})"),
             Contains("body: no messages"));
}

TEST_CASE("fields that are null are as if they weren't there, in requests and rows") {
  const ScratchFolder folder;
  const auto entry_of = [&](const std::string& row) {
    std::string line = row;
    std::replace(line.begin(), line.end(), '\n', ' ');
    const Entry entry = open_arguments({folder.write("n.jsonl", line + "\n")})->at(0);
    CHECK(entry.error == "");
    return entry;
  };
  const Entry asked = entry_of(
      R"({"custom_id": null, "method": null, "url": null, "more": null, "body": {"model": null,
          "temperature": 0.70, "top_p": 1.00, "stop": null, "messages": [{"role": "user",
          "name": null, "content": [{"type": "text", "text": "x", "image_url": null},
          {"type": "image_url", "image_url": {"url": "p.png", "detail": null}}]}]}})");
  CHECK(asked.id == folder.at("n.jsonl") + ":1");
  CHECK(asked.columns.dump() == "{}");
  CHECK(asked.overrides.dump() == R"({"temperature":0.7,"top_p":1.0})");
  REQUIRE(asked.media.size() == 1);
  CHECK_FALSE(asked.media[0].is_whole);
  const Entry row = entry_of(R"({"id": null, "custom_id": 5, "image": null, "images": ["p.png"],
      "question": null, "prompt": "q", "messages": null, "system": null, "history": null})");
  CHECK(row.id == "5");
  CHECK(row.question == "q");
  CHECK(row.messages.size() == 1);
  CHECK(row.media.size() == 1);
}

TEST_CASE("a request's picture may be base64 of any kind, and of low detail") {
  const ScratchFolder folder;
  const std::string bytes = load_text(fixture("pictures/square.png"));
  const std::string plain = data::encode_base64(bytes);
  std::string lines, url = plain;
  for (std::size_t i = 0; i < plain.size(); i += 76) lines += plain.substr(i, 76) + "\\r\\n";
  std::replace(url.begin(), url.end(), '+', '-');
  std::replace(url.begin(), url.end(), '/', '_');
  while (url.ends_with('=')) url.pop_back();
  for (const std::string& text : {plain, lines, url}) {
    for (const std::string prefix : {"", "data:image/png;base64,"}) {
      const std::string file = folder.write("b.jsonl", request("", prefix + text) + "\n");
      const Entry entry = open_arguments({file})->at(0);
      CHECK(entry.error.empty());
      REQUIRE(entry.media.size() == 1);
      CHECK(data::read_bytes(entry.media[0]) == bytes);
      CHECK(entry.path.empty());
    }
  }
  // What is neither a picture nor a path costs its own row.
  CHECK_THAT(error_of(request("", "data:image/png;base64," + plain + "=A")),
             Contains("not base64"));
  CHECK_THAT(error_of(request("", std::string(5000, 'A'))), Contains("unusable path"));

  std::string low = request("");
  low.replace(low.find("\"p.png\""), 7, R"("p.png", "detail": "low")");
  CHECK(open_arguments({folder.write("l.jsonl", low + "\n")})->at(0).media[0].is_whole);
}
}  // namespace
}  // namespace vlm::infer
