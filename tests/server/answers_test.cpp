// Answers of the server are those of the generator: texts, tokens, log-probabilities, streams.
#include <nlohmann/json.hpp>

#include "data/media/media.h"
#include "infer/search/choices.h"
#include "infer/session.h"
#include "tests/server/served.h"

namespace vlm::infer {
namespace {

// The model without a server.
struct Alone {
  Session session = open_session({.model = kShapeModel}, {.device = "cpu", .dtype = "float32"});

  EncodedConversation prompt(const std::string& question,
                             const std::vector<std::string>& names) const {
    std::vector<Image> images;
    std::vector<MediaRef> media(names.size());
    for (const std::string& name : names) {
      images.push_back(data::load_image(kShapes / (name + ".png")));
    }
    return session.generator->processor().encode_prompt(make_conversation(question, media, ""),
                                                        images);
  }
  RequestAnswer answer(const std::string& question, const std::vector<std::string>& names,
                       const std::function<void(Request&)>& change = {}) {
    const EncodedConversation encoded = prompt(question, names);
    Request request{.prompt = encoded.ids, .layout = encoded.layout, .options = session.generation};
    if (change) change(request);
    return session.generator->answer(std::move(request), encoded.pixels);
  }
};

const std::vector<std::pair<std::string, std::string>> kQuestions = {
    {"what shape is in the image?", "shape_049"}, {"what color is the rectangle?", "shape_038"},
    {"is no circle present?", "shape_059"},       {"what shape is in the image?", "shape_074"},
    {"what color is the shape?", "shape_088"},    {"is there a triangle?", "shape_092"}};

TEST_CASE("answers, tokens and usage are the generator's") {
  const Served served;
  Alone alone;
  for (const auto& [question, name] : kQuestions) {
    const RequestAnswer wanted = alone.answer(question, {name});
    const OrderedJson reply =
        served.ask(shape_body(question, {name}, {{"logprobs", true}, {"top_logprobs", 3}}));
    INFO(question << " " << name << " " << reply.dump());
    const Generation& generation = wanted.generations[0];
    CHECK(content_of(reply) == generation.text);
    CHECK(reply["choices"][0]["finish_reason"] == generation.finish_reason);
    CHECK(reply["usage"]["prompt_tokens"] == std::ssize(alone.prompt(question, {name}).ids));
    CHECK(reply["usage"]["completion_tokens"] == std::ssize(generation.ids));
    CHECK(reply["usage"]["prompt_tokens_details"]["image_tokens"] == 16);
    CHECK(reply["model"] == "easy-vqa-emoji");
    // One entry a visible token: the end has none.
    const OrderedJson& entries = reply["choices"][0]["logprobs"]["content"];
    REQUIRE(entries.size() + 1 == generation.ids.size());
    std::string bytes;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      CHECK(entries[i]["logprob"].get<double>() == Approx(generation.logprobs[i]).margin(1e-4));
      CHECK(entries[i]["top_logprobs"].size() == 3);
      CHECK(entries[i]["top_logprobs"][0]["token"] == entries[i]["token"]);  // greedy
      for (const auto& byte : entries[i]["bytes"]) bytes += static_cast<char>(byte.get<int>());
    }
    CHECK(bytes == content_of(reply));
  }
}

TEST_CASE("a stream's pieces joined are the whole answer, in events that clients know") {
  const Served served;
  for (const auto& [question, name] : kQuestions) {
    const OrderedJson whole = served.ask(shape_body(question, {name}, {{"logprobs", true}}));
    const auto events = served.stream(shape_body(
        question, {name}, {{"logprobs", true}, {"stream_options", {{"include_usage", true}}}}));
    REQUIRE(events.size() >= 4);
    CHECK(events.back() == "[DONE]");
    std::string text, finish;
    OrderedJson entries = OrderedJson::array();
    const OrderedJson first = OrderedJson::parse(events[0]);
    CHECK(first["choices"][0]["delta"].dump() == R"({"role":"assistant","content":""})");
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
      const OrderedJson event = OrderedJson::parse(events[i]);
      CHECK(event["id"] == first["id"]);
      CHECK(event["object"] == "chat.completion.chunk");
      if (i + 2 == events.size()) {
        CHECK(event["choices"].empty());
        CHECK(event["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]);
        CHECK(event["usage"]["total_tokens"] == whole["usage"]["total_tokens"]);
        continue;
      }
      CHECK(event["usage"].is_null());
      const OrderedJson& choice = event["choices"][0];
      text += choice["delta"].value("content", "");
      if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
      if (choice["logprobs"].is_null()) continue;
      for (const auto& entry : choice["logprobs"]["content"]) entries.push_back(entry);
    }
    CHECK(text == content_of(whole));
    CHECK(finish == "stop");
    CHECK(entries.size() == whole["choices"][0]["logprobs"]["content"].size());
  }
}

TEST_CASE("the same seed draws the same answers, n of them, as the generator does") {
  const Served served;
  Alone alone;
  const Json fields = {
      {"n", 3}, {"temperature", 1.5}, {"seed", -7}, {"max_tokens", 6}, {"top_k", 0}};
  const OrderedJson one = served.ask(shape_body("what is it?", {"shape_049"}, fields));
  const OrderedJson again = served.ask(shape_body("what is it?", {"shape_049"}, fields));
  const RequestAnswer wanted = alone.answer("what is it?", {"shape_049"}, [](Request& request) {
    request.options.do_sample = true;
    request.options.temperature = 1.5;
    request.options.top_k = 0;
    request.options.seed = static_cast<std::uint64_t>(-7);
    request.options.max_new_tokens = 6;
    request.options.num_return_sequences = 3;
  });
  REQUIRE(one["choices"].size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(one["choices"][i]["index"] == i);
    CHECK(content_of(one, i) == content_of(again, i));
    CHECK(content_of(one, i) == wanted.generations[i].text);
  }
  // Streamed, two answers come side by side, each whole.
  const auto events = served.stream(shape_body("what is it?", {"shape_049"}, fields));
  std::vector<std::string> texts(3);
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const OrderedJson choice = OrderedJson::parse(event)["choices"][0];
    texts[choice["index"].get<std::size_t>()] += choice["delta"].value("content", "");
  }
  for (std::size_t i = 0; i < 3; ++i) CHECK(texts[i] == content_of(one, i));
}

TEST_CASE("beams, and a limit that cuts") {
  const Served served;
  Alone alone;
  const OrderedJson reply = served.ask(
      shape_body("what is it?", {"shape_049"}, {{"num_beams", 3}, {"max_tokens", 4}, {"n", 2}}));
  const RequestAnswer wanted = alone.answer("what is it?", {"shape_049"}, [](Request& request) {
    request.options.num_beams = 3;
    request.options.max_new_tokens = 4;
    request.options.num_return_sequences = 2;
  });
  REQUIRE(reply["choices"].size() == 2);
  CHECK(content_of(reply, 0) == wanted.generations[0].text);
  CHECK(content_of(reply, 1) == wanted.generations[1].text);
  const OrderedJson cut = served.ask(endless_body({{"max_completion_tokens", 5}}));
  CHECK(cut["choices"][0]["finish_reason"] == "length");
  CHECK(cut["usage"]["completion_tokens"] == 5);
}

TEST_CASE("the text ends in front of a stop string, streamed or not") {
  const Served served;
  const std::string whole = content_of(served.ask(endless_body({{"max_tokens", 12}})));
  REQUIRE(whole.size() > 8);
  const std::string stop = whole.substr(4, 3);
  const std::string wanted = whole.substr(0, whole.find(stop));
  const Json fields = {{"max_tokens", 12}, {"stop", {stop, "@@never@@"}}};
  const OrderedJson reply = served.ask(endless_body(fields));
  CHECK(content_of(reply) == wanted);
  CHECK(reply["choices"][0]["finish_reason"] == "stop");
  std::string text;
  for (const std::string& event : served.stream(endless_body(fields))) {
    if (event == "[DONE]") continue;
    text += OrderedJson::parse(event)["choices"][0]["delta"].value("content", "");
  }
  CHECK(text == wanted);
}

TEST_CASE("choices are scored exactly") {
  const Served served;
  Alone alone;
  const std::vector<std::string> choices = {"circle", "triangle", "rectangle"};
  const Json fields = {{"structured_outputs", {{"choice", choices}}}};
  const OrderedJson reply =
      served.ask(shape_body("what shape is in the image?", {"shape_074"}, fields));
  const RequestAnswer wanted =
      alone.answer("what shape is in the image?", {"shape_074"}, [&](Request& request) {
        request.choices = encode_choices(alone.session.generator->processor(), choices);
      });
  const auto probabilities = choice_probabilities(wanted.choices, false);
  CHECK(content_of(reply) == "triangle");
  CHECK(reply["choices"][0]["finish_reason"] == "stop");
  for (std::size_t i = 0; i < choices.size(); ++i) {
    CHECK(reply["vlm"]["probabilities"][choices[i]].get<double>() ==
          Approx(probabilities[i]).margin(1e-5));
  }
  CHECK(reply["usage"]["completion_tokens"] == wanted.choices[1].tokens);
  // The tokens of the chosen text: their sum, with the end's, is the choice's.
  Json with = fields;
  with.update({{"logprobs", true}, {"top_logprobs", 2}});
  const OrderedJson told =
      served.ask(shape_body("what shape is in the image?", {"shape_074"}, with));
  std::string bytes;
  double sum = 0;
  const OrderedJson& entries = told["choices"][0]["logprobs"]["content"];
  for (std::size_t i = 0; i < entries.size(); ++i) {
    for (const auto& byte : entries[i]["bytes"]) bytes += static_cast<char>(byte.get<int>());
    sum += entries[i]["logprob"].get<double>();
    CHECK(entries[i]["logprob"].get<double>() ==
          Approx(wanted.choices[1].logprobs[i]).margin(1e-4));
    CHECK(entries[i]["top_logprobs"].size() == 2);
    CHECK(entries[i]["top_logprobs"][0]["token"] == entries[i]["token"]);
  }
  CHECK(bytes == "triangle");
  CHECK(std::ssize(entries) < wanted.choices[1].tokens);
  for (std::size_t i = entries.size(); i < wanted.choices[1].logprobs.size(); ++i) {
    sum += wanted.choices[1].logprobs[i];
  }
  CHECK(sum == Approx(wanted.choices[1].logprob).margin(1e-3));
  const auto told_events =
      served.stream(shape_body("what shape is in the image?", {"shape_074"}, with));
  CHECK(OrderedJson::parse(told_events[1])["choices"][0]["logprobs"]["content"].size() ==
        entries.size());
  const auto events =
      served.stream(shape_body("what shape is in the image?", {"shape_074"}, fields));
  REQUIRE(events.size() == 5);
  CHECK(OrderedJson::parse(events[1])["choices"][0]["delta"]["content"] == "triangle");
  CHECK(OrderedJson::parse(events[3])["vlm"]["probabilities"].size() == 3);
}

TEST_CASE("plain completions give log-probabilities in their own form") {
  const Served served;
  Json body = {{"prompt", "what shape"}, {"max_tokens", 6}, {"logprobs", 2}};
  const OrderedJson reply = served.ask(body, "/v1/completions");
  const std::string text = reply["choices"][0]["text"];
  const OrderedJson& logprobs = reply["choices"][0]["logprobs"];
  std::string joined;
  const std::size_t count = logprobs["tokens"].size();
  REQUIRE(count > 0);
  REQUIRE(logprobs["token_logprobs"].size() == count);
  REQUIRE(logprobs["top_logprobs"].size() == count);
  REQUIRE(logprobs["text_offset"].size() == count);
  for (std::size_t i = 0; i < count; ++i) {
    CHECK(logprobs["text_offset"][i] == joined.size());  // its text is ASCII
    joined += logprobs["tokens"][i];
    CHECK(logprobs["top_logprobs"][i].size() == 2);
    CHECK(logprobs["top_logprobs"][i][logprobs["tokens"][i].get<std::string>()] ==
          logprobs["token_logprobs"][i]);
  }
  CHECK(joined == text);
  OrderedJson offsets = OrderedJson::array();
  for (const std::string& event : served.stream(body, "/v1/completions")) {
    if (event == "[DONE]") continue;
    const OrderedJson part = OrderedJson::parse(event)["choices"][0]["logprobs"];
    if (part.is_null()) continue;
    for (const auto& offset : part["text_offset"]) offsets.push_back(offset);
  }
  CHECK(offsets == logprobs["text_offset"]);
}

TEST_CASE("several pictures and turns: earlier ones stay part of the prompt") {
  const Served served;
  Alone alone;
  const std::vector<std::string> names = {"shape_049", "shape_074"};
  const OrderedJson two = served.ask(shape_body("what shape is in the image?", names));
  CHECK(content_of(two) == alone.answer("what shape is in the image?", names).generations[0].text);
  CHECK(two["usage"]["prompt_tokens_details"]["image_tokens"] == 32);
  Json body = shape_body("what shape is in the image?", {"shape_049"});
  body["messages"].push_back({{"role", "assistant"}, {"content", "circle"}});
  body["messages"].push_back({{"role", "user"}, {"content", "what color is it?"}});
  CHECK(served.ask(body)["usage"]["prompt_tokens_details"]["image_tokens"] == 16);
}

TEST_CASE("an answer that goes on follows its rule as a whole, across the end of what there was") {
  const Served served;
  const std::vector<std::string> words = {"circle", "rectangle", "triangle"};
  const auto ask = [&](const std::string& begun, const Json& fields) {
    Json body = shape_body("what shape is in the image?", {"shape_074"}, fields);
    body["messages"].push_back({{"role", "assistant"}, {"content", begun}});
    body["continue_final_message"] = true;
    body["logprobs"] = true;
    return body;
  };
  const Json schema = {
      {"type", "object"},
      {"properties", {{"shape", {{"enum", words}}}, {"sure", {{"type", "boolean"}}}}},
      {"required", {"shape", "sure"}}};
  const Json form = {{"structured_outputs", {{"json", schema}}}};
  const std::string whole = R"({"shape":"triangle","sure":true})";
  // Wherever it was cut, what comes behind completes it.
  for (std::size_t cut = 1; cut <= whole.size(); ++cut) {
    const std::string begun = whole.substr(0, cut);
    INFO(begun);
    const OrderedJson reply = served.ask(ask(begun, form));
    REQUIRE(reply["choices"][0]["finish_reason"] == "stop");
    const std::string more = content_of(reply);
    const Json value = Json::parse(begun + more);
    CHECK(value["shape"].is_string());
    CHECK(value["sure"].is_boolean());
    if (cut == whole.size()) CHECK(more.empty());
    std::string bytes;
    for (const auto& entry : reply["choices"][0]["logprobs"]["content"]) {
      CHECK(entry["bytes"].size() > 0);
      for (const auto& byte : entry["bytes"]) bytes += static_cast<char>(byte.get<int>());
    }
    CHECK(bytes == more);
    std::string streamed;
    for (const std::string& event : served.stream(ask(begun, form))) {
      if (event == "[DONE]") continue;
      streamed += OrderedJson::parse(event)["choices"][0]["delta"].value("content", "");
    }
    CHECK(streamed == more);
  }
  // A token that spans the end may come: the word is written as it is from its beginning.
  const Json pattern = {{"structured_outputs", {{"regex", "(circle|rectangle|triangle)"}}}};
  const OrderedJson spanned = served.ask(ask("tri", pattern));
  CHECK(content_of(spanned) == "angle");
  CHECK(content_of(served.ask(ask("triangle", pattern))).empty());
  CHECK(served.refusal(ask("square", pattern)) ==
        "400 invalid_request_error invalid_value messages");
  CHECK(served.refusal(ask(R"({"colour":)", form)) ==
        "400 invalid_request_error invalid_value messages");
}

TEST_CASE("an answer goes on where the client stopped it") {
  const Served served;
  const OrderedJson whole = served.ask(endless_body({{"max_tokens", 8}}));
  Json body = endless_body({{"max_tokens", 8}, {"continue_final_message", true}});
  const std::string text = content_of(whole);
  const auto cut = text.find(' ');
  REQUIRE(cut != std::string::npos);
  body["messages"].push_back({{"role", "assistant"}, {"content", text.substr(0, cut)}});
  const std::string more = content_of(served.ask(body));
  INFO(text << " | " << more);
  CHECK(more.starts_with(" "));
}

TEST_CASE("confidence and times stand beside the answer when asked for") {
  const Served served;
  const OrderedJson reply =
      served.ask(shape_body("what shape is in the image?", {"shape_049"},
                            {{"vlm", {{"confidence", true}, {"timings", true}}}}));
  CHECK(reply["vlm"]["mean_logprob"].get<double>() <= 0);
  CHECK(reply["vlm"]["first_token_entropy"].get<double>() >= 0);
  CHECK(reply["timings"]["predicted_n"] == reply["usage"]["completion_tokens"]);
  CHECK(reply["timings"]["prompt_ms"].get<double>() > 0);
}

TEST_CASE("plain completions go on with a text") {
  const Served served;
  const OrderedJson reply =
      served.ask({{"prompt", "<|im_start|>User: hello"}, {"max_tokens", 4}}, "/v1/completions");
  CHECK(reply["object"] == "text_completion");
  CHECK(reply["id"].get<std::string>().starts_with("cmpl-"));
  CHECK(reply["choices"][0]["text"].is_string());
  const auto events =
      served.stream({{"prompt", "<|im_start|>User: hello"}, {"max_tokens", 4}}, "/v1/completions");
  std::string text;
  for (const std::string& event : events) {
    if (event != "[DONE]") text += OrderedJson::parse(event)["choices"][0]["text"];
  }
  CHECK(text == reply["choices"][0]["text"]);
}

TEST_CASE("tokens of a request are counted without an answer") {
  const Served served;
  const Json body = shape_body("what shape is in the image?", {"shape_049", "shape_074"});
  const OrderedJson count = served.ask(body, "/v1/chat/completions/input_tokens");
  CHECK(count["input_tokens"] == served.ask(body)["usage"]["prompt_tokens"]);
}

TEST_CASE("clients that ask at once get their own answers") {
  const Served served;
  std::vector<std::string> wanted;
  for (const auto& [question, name] : kQuestions) {
    wanted.push_back(content_of(served.ask(shape_body(question, {name}))));
  }
  std::vector<std::thread> clients;
  std::atomic<int> wrong{0}, right{0};
  for (std::size_t client = 0; client < 16; ++client) {
    clients.emplace_back([&, client] {
      for (std::size_t i = 0; i < 8; ++i) {
        const std::size_t which = (client + i) % kQuestions.size();
        const auto& [question, name] = kQuestions[which];
        const std::string response = served.post(shape_body(question, {name}));
        const bool is_right = status_of(response) == 200 &&
                              content_of(OrderedJson::parse(body_of(response))) == wanted[which];
        ++(is_right ? right : wrong);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  CHECK(wrong == 0);
  CHECK(right == 128);
}

}  // namespace
}  // namespace vlm::infer
