// The library's calls give what the generator gives, however pictures and options arrive.
#include "infer/vlm.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <thread>

#include "data/media/media.h"
#include "infer/answer_text.h"
#include "infer/session.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

Model load_tiny() {
  return Model::load(fixture("smolvlm_tiny").string(), {.device = "cpu"});
}

std::string picture_file(const std::string& name) {
  return fixture("pictures/" + name + ".png").string();
}

Picture picture(const std::string& name) {
  return Picture(picture_file(name));
}

// What must not compile: texts in the place of pictures, sides without a name, references into
// temporaries.
template <typename... Arguments>
concept CanAsk = requires(const Model& model, Arguments... arguments) {
  model.ask(arguments...);
};
static_assert(CanAsk<const char*>);
static_assert(CanAsk<Picture, const char*> && CanAsk<Video, std::string, AskOptions>);
static_assert(CanAsk<Conversation> && CanAsk<std::string, AskOptions>);
static_assert(!CanAsk<const char*, const char*> && !CanAsk<std::string, std::string>);
static_assert(!CanAsk<const char*, Picture> && !CanAsk<std::string, std::vector<Picture>>);
static_assert(!CanAsk<Picture> && !CanAsk<Conversation, const char*>);
template <typename M>
concept CanAskTextsInBraces = requires(const M& model) {
  model.ask({"a.png", "What is it?"});
};
static_assert(!CanAskTextsInBraces<Model>);

template <typename... Arguments>
concept CanChoose = requires(const Model& model, Arguments... arguments) {
  model.choose(arguments...);
};
static_assert(CanChoose<Picture, std::string, std::vector<std::string>>);
static_assert(CanChoose<std::string, std::vector<std::string>>);
static_assert(!CanChoose<std::string, Picture, std::vector<std::string>>);
static_assert(!CanChoose<std::string, std::string, std::vector<std::string>>);

template <typename... Sides>
concept HasSides = requires(Sides... sides) {
  Picture::from_rgb(sides..., {});
};
static_assert(HasSides<Height, Width> && !HasSides<Width, Height> && !HasSides<int, int>);
static_assert(!std::is_convertible_v<const char*, Picture>);
static_assert(!std::is_convertible_v<std::string, Pictures>);
static_assert(!std::is_convertible_v<int, Height> && !std::is_convertible_v<int, Width>);

static_assert(
    std::is_same_v<decltype(Conversation().user("a").assistant("b").system("c")), Conversation>);
static_assert(std::is_same_v<decltype(Conversation().turns()), std::vector<Conversation::Turn>>);
static_assert(std::is_same_v<decltype(Pictures().list()), std::vector<Picture>>);

TEST_CASE("answers are those of transformers") {
  const Model model = load_tiny();
  const Json golden = load_json(fixture("smolvlm_tiny/golden.json"));
  for (const Json& one : golden["generate"]) {
    INFO(one["name"]);
    std::vector<Picture> pictures;
    for (const Json& name : one["images"]) pictures.push_back(picture(name));
    Conversation talk;
    if (!one["system"].is_null()) talk.system(one["system"]);
    talk.user(one["question"], pictures);
    AskOptions options;
    options.max_new_tokens = one["max_new_tokens"];
    const Answer answer = model.ask(talk, options);
    CHECK(answer.text == infer::without_leading_space(one["text"].get<std::string>()));
    CHECK(answer.token_ids == one["token_ids"].get<std::vector<std::int64_t>>());
    CHECK(answer.finish_reason == one["finish_reason"].get<std::string>());
    const auto logprobs = one["token_logprobs"].get<std::vector<double>>();
    REQUIRE(answer.token_logprobs.size() == logprobs.size());
    double sum = 0;
    for (std::size_t i = 0; i < logprobs.size(); ++i) {
      CHECK(answer.token_logprobs[i] == Approx(logprobs[i]).margin(1e-4));
      sum += answer.token_logprobs[i];
    }
    CHECK(answer.mean_logprob == Approx(sum / static_cast<double>(logprobs.size())));
    if (one["system"].is_null()) {
      CHECK(model.ask(pictures, one["question"], options).token_ids == answer.token_ids);
    }
  }
}

TEST_CASE("a picture may be a file, its bytes or its pixels; several keep their order") {
  const Model model = load_tiny();
  const Picture wide = picture("wide"), tall = picture("tall");
  AskOptions options;
  options.max_new_tokens = 8;
  const auto logprobs = [&](const Pictures& pictures) {
    return model.ask(pictures, "What is it?", options).token_logprobs;
  };
  const auto expected = logprobs(wide);
  const Image image = data::load_image(picture_file("wide"));
  CHECK(logprobs({wide}) == expected);
  CHECK(logprobs(std::vector<Picture>{wide}) == expected);
  CHECK(logprobs(Picture::from_bytes(load_text(picture_file("wide")))) == expected);
  CHECK(logprobs(Picture::from_rgb(Height(image.height), Width(image.width), image.pixels)) ==
        expected);

  const auto both = logprobs({wide, Picture::from_bytes(load_text(picture_file("tall")))});
  CHECK(both == logprobs({wide, tall}));
  CHECK(both != logprobs({tall, wide}));
  CHECK(both != expected);
}

TEST_CASE("a question may stand alone") {
  const Model model = load_tiny();
  AskOptions options;
  options.max_new_tokens = 8;
  const auto expected = model.ask(Conversation().user("What is it?"), options).token_logprobs;
  CHECK(model.ask("What is it?", options).token_logprobs == expected);
  CHECK(model.ask({}, "What is it?", options).token_logprobs == expected);
  CHECK(model.ask(picture("wide"), "What is it?", options).token_logprobs != expected);
  const std::vector<std::string> texts = {"yes", "no"};
  const auto alone = model.choose("What is it?", texts),
             none = model.choose({}, "What is it?", texts);
  REQUIRE(alone.size() == 2);
  CHECK(alone[0].text == none[0].text);
  CHECK(alone[0].logprob == none[0].logprob);
}

TEST_CASE("what was moved from still works, and a conversation can be built in one expression") {
  Model model = load_tiny();
  Picture wide = picture("wide");
  AskOptions options;
  options.max_new_tokens = 4;
  const auto expected = model.ask(wide, "What is it?", options).token_logprobs;
  const Model other = std::move(model);
  const Pictures pictures(std::move(wide));
  CHECK(model.ask(wide, "What is it?", options).token_logprobs == expected);
  CHECK(other.ask(pictures, "What is it?", options).token_logprobs == expected);

  std::vector<std::string> roles;
  for (const auto& turn :
       Conversation().system("Be brief.").user("What?", picture("tall")).assistant("It.").turns()) {
    roles.push_back(turn.role + ": " + turn.text);
    CHECK(turn.pictures.list().size() == (turn.role == "user" ? 1 : 0));
  }
  CHECK(roles == std::vector<std::string>{"system: Be brief.", "user: What?", "assistant: It."});
}

TEST_CASE("a conversation's turns and pictures reach the model in their order") {
  const Model model = load_tiny();
  AskOptions options;
  options.max_new_tokens = 8;
  Conversation talk;
  talk.system("Be brief.").user("What is it?", picture("wide")).assistant("A thing.");
  talk.user("And this?", {picture("tall"), picture("square")});
  REQUIRE(talk.turns().size() == 4);

  const auto session =
      infer::open_session({.model = fixture("smolvlm_tiny").string()}, {.device = "cpu"});
  const auto text = [](const char* role, const char* said, std::size_t images = 0) {
    Message message{.role = role};
    for (std::size_t i = 0; i < images; ++i) message.content.push_back({.type = "image"});
    message.content.push_back({.type = "text", .text = said});
    return message;
  };
  const EncodedConversation prompt = session.generator->processor().encode_prompt(
      {text("system", "Be brief."), text("user", "What is it?", 1), text("assistant", "A thing."),
       text("user", "And this?", 2)},
      {data::load_image(picture_file("wide")), data::load_image(picture_file("tall")),
       data::load_image(picture_file("square"))});
  infer::GenerationOptions generation = session.generation;
  generation.max_new_tokens = 8;
  const infer::Generation expected =
      session.generator->generate({prompt}, generation)[0].generations[0];
  const Answer answer = model.ask(talk, options);
  CHECK(answer.token_ids == expected.ids);
  CHECK(answer.prompt_tokens == std::ssize(prompt.ids));
  CHECK(answer.mean_logprob == Approx(expected.mean_logprob()).margin(1e-4));
}

TEST_CASE("the streamed pieces are the text, and a callback can end it") {
  const Model model = load_tiny();
  std::string streamed;
  AskOptions options;
  options.max_new_tokens = 40;
  options.on_text = [&](std::string_view piece) {
    CHECK_FALSE(piece.empty());
    streamed += piece;
    return true;
  };
  const Answer whole = model.ask(picture("wide"), "What is it?", options);
  CHECK(streamed == whole.text);
  REQUIRE(whole.text.size() > 10);

  streamed.clear();
  options.on_text = [&](std::string_view piece) {
    streamed += piece;
    return streamed.size() < 10;
  };
  const Answer part = model.ask(picture("wide"), "What is it?", options);
  CHECK(part.finish_reason == "interrupted");
  CHECK(part.token_ids.size() < whole.token_ids.size());
  CHECK(whole.text.starts_with(streamed));
}

TEST_CASE("a callback that throws leaves the model as it was") {
  const Model model = load_tiny();
  const auto ask = [&](const AskOptions& options) {
    return model.ask(picture("wide"), "What is it?", options).token_logprobs;
  };
  AskOptions options;
  options.max_new_tokens = 8;
  const auto expected = ask(options);
  AskOptions throwing = options;
  throwing.on_text = [](std::string_view) -> bool { throw std::runtime_error("pipe broke"); };
  CHECK_THROWS_WITH(ask(throwing), "pipe broke");
  CHECK(ask(options) == expected);
}

TEST_CASE("samples follow their seed, and come near greedy as it gets cold") {
  const Model model = load_tiny();
  const auto talk = Conversation().user("What is it?", picture("wide"));
  AskOptions options;
  options.max_new_tokens = 8;
  const Answer greedy = model.ask(talk, options);
  options.do_sample = true;
  options.temperature = 1e-6;
  CHECK(model.ask(talk, options).token_ids == greedy.token_ids);
  options.temperature = 5.0;
  options.top_k = 0;
  const Answer one = model.ask(talk, options);
  CHECK(one.token_ids != greedy.token_ids);
  CHECK(model.ask(talk, options).token_ids == one.token_ids);
  options.seed = 1;
  CHECK(model.ask(talk, options).token_ids != one.token_ids);
  options.top_k = 1;
  CHECK(model.ask(talk, options).token_ids == greedy.token_ids);

  options.top_k = 0;
  options.num_return_sequences = 3;
  bool is_told = false;
  options.on_text = [&](std::string_view) { return is_told = true; };
  const auto three = model.ask_many(talk, options);
  REQUIRE(three.size() == 3);
  CHECK(three[0].token_ids != three[1].token_ids);
  CHECK(three[1].token_ids != three[2].token_ids);
  CHECK_FALSE(is_told);
}

TEST_CASE("beam search gives its best answers, the best first") {
  const Model model = load_tiny();
  const auto talk = Conversation().user("What is it?", picture("wide"));
  AskOptions options;
  options.max_new_tokens = 6;
  const Answer greedy = model.ask(talk, options);
  options.num_beams = 4;
  options.num_return_sequences = 4;
  options.length_penalty = 0.0;  // scores are sums
  const auto answers = model.ask_many(talk, options);
  REQUIRE(answers.size() == 4);
  const auto sum = [](const Answer& answer) {
    return answer.mean_logprob * static_cast<double>(answer.token_ids.size());
  };
  for (const Answer& answer : answers) CHECK(answer.score == Approx(sum(answer)).margin(1e-4));
  for (std::size_t i = 1; i < 4; ++i) CHECK(answers[i - 1].score >= answers[i].score);
  CHECK(answers[0].score >= sum(greedy) - 1e-4);
  CHECK(model.ask(talk, options).token_ids == answers[0].token_ids);
}

TEST_CASE("an answer has the form that a schema or a pattern says") {
  const Model model = Model::load(std::string(VLM_SOURCE_DIR) + "/models/easy-vqa-emoji",
                                  {.device = "cpu", .dtype = "float32"});
  std::string streamed;
  AskOptions options;
  options.json_schema = R"({"properties": {"b": {"enum": ["x", "y"]}, "a": {"maximum": 9,
                            "minimum": 1, "type": "integer"}}, "required": ["b", "a"]})";
  options.on_text = [&](std::string_view piece) {
    streamed += piece;
    return true;
  };
  const Answer answer = model.ask("what?", options);
  CHECK(answer.finish_reason == "stop");
  CHECK(streamed == answer.text);
  const Json value = Json::parse(answer.text);
  CHECK((value["b"] == "x" || value["b"] == "y"));
  CHECK((value["a"] >= 1 && value["a"] <= 9));
  options = {.regex = "[0-9]{4}"};
  CHECK(model.ask("what?", options).text.size() == 4);
  CHECK(model.ask_async(Conversation().user("what?"), options).get().text.size() == 4);
  options.json_schema = "{}";
  CHECK_THROWS_WITH(model.ask("what?", options),
                    "AskOptions: both json_schema and regex: wanted one");
  options = {.json_schema = R"({"not": {}})"};
  CHECK_THROWS_WITH(model.ask("what?", options),
                    Contains("AskOptions: /: the schema can't be kept"));
}

TEST_CASE("stop strings and lengths end an answer where they say") {
  const Model model = load_tiny();
  const auto talk = Conversation().user("Describe the image.", picture("wide"));
  AskOptions options;
  options.max_new_tokens = 8;
  const Answer whole = model.ask(talk, options);
  REQUIRE(whole.text.find("@q#") != std::string::npos);  // by the golden answer
  options.stop_strings = {"@q"};
  const Answer stopped = model.ask(talk, options);
  CHECK(stopped.text == whole.text.substr(0, whole.text.find("@q") + 2));
  CHECK(stopped.finish_reason == "stop");
  options.max_new_tokens = 2;
  CHECK(model.ask(talk, options).token_ids.size() == 2);
  options.max_new_tokens = 0;
  CHECK(model.ask(talk, options).text.empty());
}

TEST_CASE("choices are ranked by their likelihood behind the prompt") {
  const Model model = load_tiny();
  const std::vector<std::string> texts = {"a dog", "yes", "no", "a very long answer"};
  const auto choices = model.choose(picture("wide"), "What is it?", texts);
  REQUIRE(choices.size() == 4);
  double total = 0;
  std::set<std::string> seen;
  for (const Choice& choice : choices) {
    CHECK(choice.probability ==
          Approx(choices[0].probability * std::exp(choice.logprob - choices[0].logprob)));
    CHECK(choice.probability <= choices[0].probability);
    total += choice.probability;
    seen.insert(choice.text);
  }
  CHECK(total == Approx(1));
  CHECK(seen == std::set<std::string>(texts.begin(), texts.end()));

  // The mean favours what is long.
  ChooseOptions by_mean;
  by_mean.by_mean = true;
  const auto means = model.choose(picture("wide"), "What is it?", texts, by_mean);
  const auto find = [](const std::vector<Choice>& list, const std::string& text) {
    return *std::find_if(list.begin(), list.end(), [&](const auto& c) { return c.text == text; });
  };
  for (const std::string& text : texts) {
    CHECK(find(means, text).logprob == Approx(find(choices, text).logprob));
  }
  CHECK(find(means, texts[3]).probability > find(choices, texts[3]).probability);

  const auto other = model.choose(Conversation().user("What is it?", picture("tall")), texts);
  CHECK(find(other, "yes").logprob != find(choices, "yes").logprob);
}

TEST_CASE("picture features are kept on disk when a folder is named") {
  const ScratchFolder scratch;
  AskOptions options;
  options.max_new_tokens = 8;
  std::vector<std::vector<double>> logprobs;
  for (int run = 0; run < 2; ++run) {
    const Model model = Model::load(fixture("smolvlm_tiny").string(),
                                    {.device = "cpu", .feature_cache = scratch.at("cache")});
    logprobs.push_back(model.ask(picture("wide"), "What is it?", options).token_logprobs);
    CHECK(std::filesystem::exists(scratch.at("cache/lock")));
  }
  CHECK(logprobs[0] == logprobs[1]);
  CHECK(logprobs[0] == load_tiny().ask(picture("wide"), "What is it?", options).token_logprobs);
}

TEST_CASE("loading and asking leave the program's random numbers and threads alone") {
  const auto state = [] { return at::detail::getDefaultCPUGenerator().get_state(); };
  at::manual_seed(29);
  const at::Tensor before = state();
  const int threads = at::get_num_threads();
  const Model model = load_tiny();
  CHECK(state().equal(before));
  model.ask(picture("wide"), "What?", {.max_new_tokens = 2, .do_sample = true, .seed = 3});
  CHECK(state().equal(before));
  CHECK(at::get_num_threads() == threads);
}

TEST_CASE("threads and copies share a model") {
  const Model model = load_tiny();
  AskOptions options;
  options.max_new_tokens = 12;
  std::vector<std::string> names = {"wide", "tall", "square"};
  std::vector<std::vector<double>> alone, together(names.size() * 3);
  for (const auto& name : names) {
    alone.push_back(model.ask(picture(name), "What is it?", options).token_logprobs);
  }
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < together.size(); ++i) {
    threads.emplace_back([&, i, copy = model] {
      together[i] = copy.ask(picture(names[i % 3]), "What is it?", options).token_logprobs;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < together.size(); ++i) {
    REQUIRE(together[i].size() == 12);
    for (std::size_t t = 0; t < 12; ++t) {
      CHECK(together[i][t] == Approx(alone[i % 3][t]).margin(1e-4));
    }
  }
}

TEST_CASE("what a caller gets wrong is told") {
  const Model model = load_tiny();
  CHECK_THROWS_WITH(Model::load("none"), "none: no such model folder");
  CHECK_THROWS_WITH(Model::load(fixture("smolvlm_tiny").string(), {.device = "gpu"}),
                    "unknown device: got 'gpu', wanted auto, cpu, cuda or cuda:N");
  CHECK_THROWS_WITH(model.ask(Picture("none.png"), "What?"),
                    "none.png: can't open the file: got No such file or directory");
  CHECK_THROWS_WITH(model.ask(Picture::from_bytes("not a picture"), "What?"),
                    Contains("picture in memory: "));
  AskOptions options;
  options.max_new_tokens = -1;
  CHECK_THROWS_WITH(model.ask({}, "What?", options),
                    "AskOptions: max_new_tokens is out of range: got -1, wanted 0 or more");
  options.max_new_tokens = 8;
  options.temperature = 0.0;
  CHECK_THROWS_WITH(model.ask({}, "What?", options),
                    "AskOptions: temperature is out of range: got 0, wanted above 0");
  CHECK_THROWS_WITH(model.choose({}, "What?", {"yes"}), Contains("nothing to choose from"));
  CHECK_THROWS_WITH(model.choose({}, "What?", {"yes", "yes"}), Contains("a choice is given twice"));
  for (const double size : {-1.0, 1e9, std::nan("")}) {
    CHECK_THROWS_WITH(
        Model::load(fixture("smolvlm_tiny").string(), {.feature_cache_gb = size}),
        Contains("feature_cache_gb: value out of range: got ") && Contains(", wanted 0 to 1e+06"));
  }

  const std::string text = "pixels don't fit the picture's size: got 12 bytes, wanted ";
  const std::vector<std::uint8_t> pixels(12);
  CHECK_NOTHROW(Picture::from_rgb(Height(2), Width(2), pixels));
  CHECK_THROWS_WITH(Picture::from_rgb(Height(2), Width(3), pixels), text + "2 x 3 x 3");
  CHECK_THROWS_WITH(Picture::from_rgb(Height(-2), Width(-2), pixels), text + "-2 x -2 x 3");
  CHECK_THROWS_WITH(Picture::from_rgb(Height(0), Width(4), pixels), text + "0 x 4 x 3");
  CHECK_THROWS_WITH(Picture::from_rgb(Height(1LL << 62), Width(4), pixels), Contains(text));
  CHECK_THROWS_WITH(Picture::from_rgb(Height(0), Width(0), {}),
                    Contains("got 0 bytes, wanted 0 x 0 x 3"));
}

}  // namespace
}  // namespace vlm
