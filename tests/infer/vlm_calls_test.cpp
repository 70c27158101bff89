// Calls of the library that don't wait, many at once, and ended from outside.
#include <algorithm>
#include <chrono>
#include <future>
#include <stdexcept>
#include <thread>

#include "infer/vlm.h"
#include "tests/support/catch.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

Model load_small(const ModelOptions& given = {}) {
  ModelOptions options = given;
  options.device = "cpu";
  return Model::load(fixture("smolvlm_tiny").string(), options);
}

Picture picture_of(const std::string& name) {
  return Picture(fixture("pictures/" + name + ".png").string());
}

AskOptions tokens(std::int64_t count) {
  AskOptions options;
  options.max_new_tokens = count;
  return options;
}

TEST_CASE("calls that don't wait give what calls that wait do") {
  const Model model = load_small({.batch_size = 3});
  std::vector<std::string> names = {"wide", "tall", "square"};
  std::vector<Answer> waited;
  for (const auto& name : names) {
    waited.push_back(model.ask(picture_of(name), "What is it?", tokens(9)));
  }
  std::vector<std::future<Answer>> later;
  for (std::size_t i = 0; i < 12; ++i) {
    later.push_back(
        model.ask_async(Conversation().user("What is it?", picture_of(names[i % 3])), tokens(9)));
  }
  for (std::size_t i = 0; i < later.size(); ++i) {
    const Answer answer = later[i].get();
    CHECK(answer.token_ids == waited[i % 3].token_ids);
    CHECK(answer.text == waited[i % 3].text);
    CHECK(answer.prompt_tokens == waited[i % 3].prompt_tokens);
  }
  CHECK_THROWS_WITH(model.ask_async(Conversation().user("What?", Picture("none.png"))).get(),
                    "none.png: can't open the file: got No such file or directory");
  AskOptions wrong;
  wrong.max_new_tokens = -1;
  CHECK_THROWS_WITH(model.ask_async(Conversation().user("What?"), wrong).get(),
                    Contains("max_new_tokens is out of range"));
}

TEST_CASE("one bad conversation among many is its own error") {
  const Model model = load_small();
  std::vector<Conversation> talks;
  for (const std::string name : {"wide", "none", "tall"}) {
    talks.push_back(Conversation().user("What is it?", picture_of(name)));
  }
  std::string endless;
  for (int i = 0; i < 600; ++i) endless += "word ";
  talks.push_back(Conversation().user(endless));
  const std::vector<Reply> replies = model.ask_all(talks, tokens(6));
  REQUIRE(replies.size() == 4);
  for (const std::size_t good : {0, 2}) {
    CHECK(replies[good].error.empty());
    CHECK(replies[good].answer.token_ids == model.ask(talks[good], tokens(6)).token_ids);
  }
  CHECK_THAT(replies[1].error, Contains("none.png: can't open the file"));
  CHECK_THAT(replies[3].error, Contains("the prompt is too long"));
  AskOptions streaming;
  streaming.on_text = [](std::string_view) { return true; };
  CHECK_THROWS_WITH(model.ask_all(talks, streaming),
                    "AskOptions::on_text: pieces of several conversations can't be told apart "
                    "(ask_async takes one conversation, and pieces)");
  CHECK(model.ask_all({}).empty());
}

TEST_CASE("a cancellation ends calls where they are, and later ones at once") {
  const Model model = load_small();
  const auto talk = Conversation().user("What is it?", picture_of("wide"));
  const Answer whole = model.ask(talk, tokens(60));
  AskOptions options = tokens(60);
  options.cancellation.emplace();
  const Cancellation cancellation = *options.cancellation;
  CHECK_FALSE(cancellation.is_requested());
  std::string streamed;
  options.on_text = [&](std::string_view piece) {
    streamed += piece;
    if (streamed.size() > 8) cancellation.request();
    return true;
  };
  const Answer part = model.ask(talk, options);
  CHECK(part.finish_reason == "interrupted");
  CHECK(part.text == streamed);
  CHECK(part.token_ids.size() < whole.token_ids.size());
  CHECK(std::equal(part.token_ids.begin(), part.token_ids.end(), whole.token_ids.begin()));
  CHECK(cancellation.is_requested());
  const Answer none = model.ask(talk, options);
  CHECK(none.finish_reason == "interrupted");
  CHECK(none.token_ids.size() < whole.token_ids.size());

  AskOptions later = tokens(60);
  later.cancellation.emplace();
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 20; ++i) answers.push_back(model.ask_async(talk, later));
  later.cancellation->request();
  for (auto& answer : answers) {
    const Answer one = answer.get();
    CHECK((one.finish_reason == "interrupted" || one.token_ids == whole.token_ids));
  }
  CHECK(model.ask(talk, tokens(60)).token_ids == whole.token_ids);
}

TEST_CASE("pieces reach the caller of a call that doesn't wait, who may end it") {
  const Model model = load_small();
  const auto talk = Conversation().user("What is it?", picture_of("wide"));
  const Answer whole = model.ask(talk, tokens(40));
  std::string streamed;
  AskOptions options = tokens(40);
  options.on_text = [&](std::string_view piece) {
    streamed += piece;
    return true;
  };
  CHECK(model.ask_async(talk, options).get().text == whole.text);
  CHECK(streamed == whole.text);
  int calls = 0;
  options.on_text = [&](std::string_view) { return ++calls < 3; };
  const Answer part = model.ask_async(talk, options).get();
  CHECK(part.finish_reason == "interrupted");
  CHECK(calls == 3);
  CHECK(part.token_ids.size() < whole.token_ids.size());
}

TEST_CASE("answers that nobody has waited for end with the model") {
  std::vector<std::future<Answer>> answers;
  {
    const Model model = load_small({.batch_size = 1});
    for (int i = 0; i < 30; ++i) {
      answers.push_back(
          model.ask_async(Conversation().user("What is it?", picture_of("wide")), tokens(80)));
    }
  }
  int told = 0;
  for (auto& answer : answers) {
    try {
      answer.get();
      ++told;
    } catch (const Error& error) {
      const std::string text = error.what();
      const bool is_known =
          text == "the model went away before it was asked" || text == "the engine was ended";
      CHECK(is_known);
      ++told;
    }
  }
  CHECK(told == 30);
}

TEST_CASE("text and pictures alternate in a turn as they are given") {
  const Model model = load_small();
  const auto ids = [&](const Conversation& talk) { return model.ask(talk, tokens(8)); };
  const Picture wide = picture_of("wide"), tall = picture_of("tall");
  const Answer parts = ids(Conversation().user_parts({"First ", wide, " then ", tall, " Why?"}));
  const Answer others = ids(Conversation().user_parts({"First ", tall, " then ", wide, " Why?"}));
  const Answer in_front = ids(Conversation().user_parts({wide, tall, "First  then  Why?"}));
  CHECK(in_front.token_logprobs ==
        ids(Conversation().user("First  then  Why?", {wide, tall})).token_logprobs);
  CHECK(parts.token_logprobs != in_front.token_logprobs);
  CHECK(parts.token_logprobs != others.token_logprobs);
  CHECK(parts.prompt_tokens > 0);
}

TEST_CASE("a stop string may stay out of the text") {
  const Model model = load_small();
  const auto talk = Conversation().user("Describe the image.", picture_of("wide"));
  const Answer whole = model.ask(talk, tokens(8));
  const std::size_t at = whole.text.find("@q#");
  REQUIRE(at != std::string::npos);  // by the golden answer
  std::string streamed;
  AskOptions options = tokens(8);
  options.stop_strings = {"@q"};
  options.hides_stop_strings = true;
  options.on_text = [&](std::string_view piece) {
    streamed += piece;
    return true;
  };
  const Answer stopped = model.ask(talk, options);
  CHECK(stopped.text == whole.text.substr(0, at));
  CHECK(streamed == stopped.text);
  CHECK(stopped.finish_reason == "stop");
}

TEST_CASE("the second turn of a conversation uses what the first one computed") {
  const Model fresh = load_small({.kept_pictures_mb = 0, .kept_prompts_mb = 0});
  const Model model = load_small();
  std::string text = "What is it?";
  for (int i = 0; i < 30; ++i) text += " And this shape?";
  Conversation talk;
  talk.user(text, {picture_of("wide"), picture_of("tall")});
  const Answer first = model.ask(talk, tokens(6));
  CHECK(first.cached_tokens == 0);
  talk.assistant(first.text).user("And its colour?");
  const Answer second = model.ask(talk, tokens(6)), alone = fresh.ask(talk, tokens(6));
  CHECK(second.cached_tokens >= 128);
  CHECK(second.cached_tokens < second.prompt_tokens);
  CHECK(alone.cached_tokens == 0);
  CHECK(second.token_logprobs == alone.token_logprobs);
  CHECK_THROWS_WITH(load_small({.batch_size = 0}),
                    "batch_size: value out of range: wanted 1 or more");
}

TEST_CASE("a chat template's variables and day are the model's options") {
  const auto ask = [](const ModelOptions& options) {
    return Model::load(fixture("llama_tiny").string(), options)
        .ask("What day is it?", tokens(4))
        .token_logprobs;
  };
  const auto named = ask({.device = "cpu", .template_arguments = {{"date_string", "26 Jul 2024"}}});
  CHECK(named == ask({.device = "cpu", .template_day = "2024-07-26"}));
  CHECK(named != ask({.device = "cpu", .template_day = "1999-12-31"}));
  CHECK_THROWS_WITH(ask({.device = "cpu", .template_arguments = {{"colour", "red"}}}),
                    Contains("colour"));
}

TEST_CASE("a GGUF file is a model, with its vision file named") {
  const std::string file = fixture("gguf/smolvlm_tiny.gguf").string();
  const std::string mmproj = fixture("gguf/mmproj-smolvlm_tiny.gguf").string();
  const Model model = Model::load(file, {.mmproj = mmproj, .device = "cpu"});
  CHECK(model.ask(picture_of("wide"), "What?", tokens(3)).token_ids.size() == 3);
  CHECK_THROWS_WITH(Model::load(fixture("smolvlm_tiny").string(), {.mmproj = mmproj}),
                    Contains("a vision encoder's file goes with a GGUF model"));
}

TEST_CASE("guessing ahead changes no answer, and is refused where it has no effect") {
  const Model model = load_small();
  AskOptions plain = tokens(24), guessing = plain;
  guessing.prompt_lookup_num_tokens = 5;
  const Picture picture = picture_of("tall");
  CHECK(model.ask(picture, "a b a b a b", guessing).token_ids ==
        model.ask(picture, "a b a b a b", plain).token_ids);
  guessing.num_beams = 2;
  CHECK_THROWS_WITH(model.ask(picture, "What?", guessing),
                    Contains("AskOptions::prompt_lookup_num_tokens: has no effect on beams"));
}

TEST_CASE("a document model's page becomes Markdown or HTML") {
  const std::string page =
      "<doctag><section_header_level_1><loc_1><loc_1><loc_9><loc_9>Prices"
      "</section_header_level_1><text><loc_1><loc_1><loc_9><loc_9>All of "
      "them</text></doctag>";
  CHECK_THAT(doctags_to_markdown(page), Contains("## Prices\n\nAll of them"));
  CHECK_THAT(doctags_to_html(page), Contains("<h2>Prices</h2>") && Contains("All of them"));
}

}  // namespace
}  // namespace vlm
