// Answers against transformers', and what batches may not change.
#include "infer/generator.h"

#include <c10/core/GradMode.h>

#include <nlohmann/json.hpp>

#include "data/media/media.h"
#include "infer/answer_text.h"
#include "infer/items/item.h"
#include "infer/search/choices.h"
#include "infer/session.h"
#include "tests/infer/sessions.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

EncodedConversation encode(const Session& session, const Json& one) {
  std::vector<Image> images;
  for (const Json& name : one["images"]) {
    images.push_back(data::load_image(fixture("pictures/" + name.get<std::string>() + ".png")));
  }
  const std::string system = one["system"].is_null() ? "" : one["system"].get<std::string>();
  return session.generator->processor().encode_prompt(
      make_conversation(one["question"], std::vector<MediaRef>(images.size()), system), images);
}

Generation generate(const Session& session, const EncodedConversation& prompt,
                    const GenerationOptions& options) {
  return session.generator->generate({prompt}, options)[0].generations[0];
}

TEST_CASE("greedy answers about pictures equal transformers'") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny"}) {
    Session session = open_fixture(name);
    const Json golden = load_json(fixture(name + "/golden.json"));
    for (const Json& one : golden["generate"]) {
      INFO(name << ": " << one["name"]);
      const EncodedConversation prompt = encode(session, one);
      CHECK(prompt.ids == one["prompt_token_ids"].get<std::vector<std::int64_t>>());
      GenerationOptions options = session.generation;
      options.max_new_tokens = one["max_new_tokens"];
      const Generation answer = generate(session, prompt, options);
      CHECK(answer.ids == one["token_ids"].get<std::vector<std::int64_t>>());
      const auto logprobs = one["token_logprobs"].get<std::vector<double>>();
      REQUIRE(answer.logprobs.size() == logprobs.size());
      for (std::size_t i = 0; i < logprobs.size(); ++i) {
        CHECK(answer.logprobs[i] == Approx(logprobs[i]).margin(1e-4));
      }
      CHECK(answer.text == without_leading_space(one["text"].get<std::string>()));
      CHECK(answer.finish_reason == one["finish_reason"].get<std::string>());
    }
  }
}

TEST_CASE("a batch gives what its prompts give alone") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd"}) {
    Session session = open_fixture(name);
    const Json golden = load_json(fixture(name + "/golden.json"));
    std::vector<EncodedConversation> prompts;
    for (const Json& one : golden["generate"]) prompts.push_back(encode(session, one));
    GenerationOptions options = session.generation;
    options.max_new_tokens = 20;
    std::vector<std::vector<std::int64_t>> streamed(prompts.size());
    const auto together =
        session.generator->generate(prompts, options, [&](std::size_t row, std::int64_t id) {
          streamed[row].push_back(id);
          return true;
        });
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      INFO(name << ": " << golden["generate"][i]["name"]);
      const Generation alone = generate(session, prompts[i], options);
      const Generation& beside = together[i].generations[0];
      CHECK(beside.ids == alone.ids);
      CHECK(beside.finish_reason == alone.finish_reason);
      CHECK(beside.mean_logprob() == Approx(alone.mean_logprob()).margin(1e-4));
      CHECK(streamed[i] == alone.ids);
    }
  }
}

TEST_CASE("a callback that throws leaves nothing of its call with the generator") {
  Session session = open_fixture(kTinyModel);
  const std::vector<EncodedConversation> prompts(3, {.ids = {1, 278, 28, 223}});
  GenerationOptions options = session.generation;
  options.max_new_tokens = 6;
  Generator& generator = *session.generator;
  generator.set_batch_size(2);
  const RequestAnswer expected = generator.generate(prompts, options)[0];
  {
    const std::function<bool(std::size_t, std::int64_t)> throwing = [](std::size_t row,
                                                                       std::int64_t) -> bool {
      return row < 1 ? true : throw std::runtime_error("pipe broke");
    };
    CHECK_THROWS_WITH(generator.generate(prompts, options, throwing), "pipe broke");
  }
  CHECK(generator.is_idle());
  CHECK(generator.step().empty());
  // As many groups at a time as before: the third waits.
  for (std::uint64_t i = 0; i < 3; ++i) {
    RequestGroup group;
    group.requests.push_back({.id = i, .prompt = prompts[i].ids, .options = options});
    generator.submit(std::move(group));
  }
  generator.step();
  CHECK(generator.waiting() == 1);
  CHECK_THROWS_WITH(generator.generate(prompts, options), Contains("at work for somebody else"));
  generator.abandon();
  Request request{.prompt = prompts[0].ids, .options = options};
  request.on_token = [](std::int64_t) -> bool { throw std::runtime_error("closed"); };
  CHECK_THROWS_WITH(generator.answer(request, {}), "closed");
  CHECK(generator.is_idle());
  const bool is_same = generator.generate(prompts, options)[0].generations == expected.generations;
  CHECK(is_same);
}

TEST_CASE("an answer begins with no space, whole and streamed") {
  Session session = open_fixture(kTinyModel);
  const Tokenizer& tokenizer = session.generator->processor().tokenizer();
  for (const std::string text : {" circle", "  two words", "none", " ", " a b"}) {
    AnswerStream stream(tokenizer);
    std::string streamed;
    for (const std::int64_t id : tokenizer.encode(text)) streamed += stream.add(id);
    streamed += stream.finish();
    CHECK(streamed == without_leading_space(text));
  }
  CHECK(without_leading_space("  two words ") == "two words ");
  CHECK(without_leading_space(" \n") == "\n");
  CHECK(without_leading_space("   ").empty());
}

TEST_CASE("answers end at the limit, at an end id, or at the last position") {
  Session session = open_fixture(kTinyModel);
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  GenerationOptions options = session.generation;
  options.max_new_tokens = 0;
  CHECK(generate(session, prompt, options).ids.empty());
  options.max_new_tokens = 5;
  const Generation five = generate(session, prompt, options);
  CHECK(five.ids.size() == 5);
  CHECK(five.finish_reason == "length");
  options.eos_token_ids = {five.ids[1]};
  const Generation ended = generate(session, prompt, options);
  CHECK(ended.ids.back() == five.ids[1]);
  CHECK(ended.finish_reason == "stop");
  CHECK_THROWS_WITH(
      session.generator->generate({EncodedConversation{}}, options),
      "the prompt is empty: got 0 tokens, wanted fewer than max_position_embeddings = 512");
  const EncodedConversation endless{.ids = std::vector<std::int64_t>(600, 20)};
  CHECK_THROWS_WITH(session.generator->generate({endless}, options),
                    Contains("the prompt is too long"));
}

TEST_CASE("a callback that says no ends the answer there") {
  Session session = open_fixture(kTinyModel);
  int left = 3;
  const Generation cut =
      session.generator
          ->generate({EncodedConversation{.ids = {1, 278, 28}}}, session.generation,
                     [&](std::size_t, std::int64_t) { return --left > 0; })[0]
          .generations[0];
  CHECK(cut.ids.size() == 3);
  CHECK(cut.finish_reason == "interrupted");
}

TEST_CASE("an adapter answers merged as it does in training") {
  const std::string adapter = fixture("smolvlm_tiny/adapters/plain").string();
  const Session plain = open_fixture(kTinyModel);
  const Session adapted = open_session(
      {.model = fixture("smolvlm_tiny").string(), .adapter = adapter}, {.device = "cpu"});
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  CHECK(generate(plain, prompt, plain.generation).logprobs !=
        generate(adapted, prompt, plain.generation).logprobs);
}

std::vector<RequestAnswer> run(Generator& generator) {
  std::vector<RequestAnswer> answers;
  while (!generator.is_idle()) {
    for (RequestAnswer& answer : generator.step()) answers.push_back(std::move(answer));
  }
  std::sort(answers.begin(), answers.end(),
            [](const RequestAnswer& a, const RequestAnswer& b) { return a.id < b.id; });
  return answers;
}

RequestGroup make_group(const EncodedConversation& prompt, std::vector<Request> requests) {
  RequestGroup group{.requests = std::move(requests)};
  if (prompt.pixel_values.defined()) {
    group.pictures = std::make_shared<PictureFeatures>(PictureFeatures{prompt.pixel_values});
  }
  return group;
}

TEST_CASE("beam search about pictures equals transformers', many at a time") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd"}) {
    Session session = open_fixture(name);
    const Json records = load_json(fixture("decoding/beams_" + name + ".json"));
    REQUIRE(records.size() > 30);
    session.generator->set_batch_size(7);
    for (std::size_t i = 0; i < records.size(); ++i) {
      const EncodedConversation prompt = encode(session, records[i]);
      const Json& given = records[i]["options"];
      GenerationOptions options;
      options.eos_token_ids = records[i]["eos_token_id"].get<std::vector<std::int64_t>>();
      options.num_beams = given["num_beams"];
      options.num_return_sequences = given["num_return_sequences"];
      options.length_penalty = given["length_penalty"];
      const Json& early = given["early_stopping"];
      options.early_stopping = early.is_boolean() ? early.dump() : early.get<std::string>();
      options.max_new_tokens = given["max_new_tokens"];
      options.min_new_tokens = given.value("min_new_tokens", 0);
      options.repetition_penalty = given.value("repetition_penalty", 1.0);
      options.no_repeat_ngram_size = given.value("no_repeat_ngram_size", 0);
      session.generator->submit(
          make_group(prompt, {{.id = i, .prompt = prompt.ids, .options = options}}));
    }
    const auto answers = run(*session.generator);
    REQUIRE(answers.size() == records.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
      INFO(name << ": " << records[i]["name"] << " " << records[i]["options"].dump());
      std::vector<std::vector<std::int64_t>> ids;
      for (const Generation& one : answers[i].generations) ids.push_back(one.ids);
      CHECK(ids == records[i]["token_ids"].get<std::vector<std::vector<std::int64_t>>>());
      const auto scores = records[i]["scores"].get<std::vector<double>>();
      for (std::size_t k = 0; k < scores.size(); ++k) {
        CHECK(answers[i].generations[k].score == Approx(scores[k]).margin(1e-4).epsilon(1e-4));
      }
    }
  }
}

// Prompts that show one picture and ask different things, of different lengths.
std::vector<EncodedConversation> ask_about_square(const Session& session) {
  std::vector<EncodedConversation> prompts;
  for (const std::string question :
       {"What is this?", "How many?", "Describe the image in great detail.", "Why?", "A dog?",
        "Is it red or blue or both?", "What is this thing?", "x", "And the colour of it?"}) {
    prompts.push_back(
        encode(session, {{"images", {"square"}}, {"question", question}, {"system", nullptr}}));
  }
  return prompts;
}

TEST_CASE("questions that share a picture's prompt are answered as alone") {
  Session session = open_fixture(kTinyModel);
  const auto prompts = ask_about_square(session);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 9;
  for (const std::int64_t beams : {1, 3}) {
    options.num_beams = beams;
    std::vector<Request> requests;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      requests.push_back({.id = i, .prompt = prompts[i].ids, .options = options});
    }
    session.generator->submit(make_group(prompts[0], std::move(requests)));
    const auto together = run(*session.generator);
    REQUIRE(together.size() == prompts.size());
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      INFO(beams << " beams, question " << i);
      const Generation alone = generate(session, prompts[i], options);
      CHECK(together[i].generations[0].ids == alone.ids);
      CHECK(together[i].generations[0].mean_logprob() == Approx(alone.mean_logprob()).margin(1e-4));
    }
  }
}

TEST_CASE("groups enter and leave while others go on, and nothing changes") {
  Session session = open_fixture("smolvlm_odd");
  const Json golden = load_json(fixture("smolvlm_odd/golden.json"));
  std::vector<EncodedConversation> prompts;
  std::vector<GenerationOptions> options;
  for (std::size_t i = 0; i < 30; ++i) {
    prompts.push_back(encode(session, golden["generate"][i % golden["generate"].size()]));
    options.push_back(session.generation);
    options.back().max_new_tokens = static_cast<std::int64_t>(1 + i * 7 % 13);
    options.back().do_sample = i % 3 == 1;
    options.back().seed = i;
  }
  std::vector<RequestAnswer> alone;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    alone.push_back(session.generator->answer(
        {.prompt = prompts[i].ids, .options = options[i], .stream = i}, prompts[i].pixel_values));
  }
  for (const std::int64_t batch_size : {2, 5, 16}) {
    session.generator->set_batch_size(batch_size);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      session.generator->submit(make_group(
          prompts[i], {{.id = i, .prompt = prompts[i].ids, .options = options[i], .stream = i}}));
    }
    const auto together = run(*session.generator);
    REQUIRE(together.size() == prompts.size());
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      INFO("batch size " << batch_size << ", request " << i);
      CHECK(together[i].generations[0].ids == alone[i].generations[0].ids);
    }
  }
}

// Sum of log-probabilities of ids [begin, end) of a sequence, by one pass over all of it.
double score_directly(const Session& session, const EncodedConversation& prompt,
                      const std::vector<std::int64_t>& choice) {
  const c10::NoGradGuard no_grad;
  std::vector<std::int64_t> ids = prompt.ids;
  ids.insert(ids.end(), choice.begin(), choice.end());
  const at::Tensor embeddings =
      session.model->embed(at::tensor(ids, at::kLong).unsqueeze(0),
                           session.model->encode_images(prompt.pixel_values, {}));
  const at::Tensor logprobs =
      session.model->logits(session.model->decode(embeddings, {}, nullptr))[0].log_softmax(-1);
  double sum = 0;
  for (std::size_t i = prompt.ids.size(); i < ids.size(); ++i) {
    sum += logprobs[static_cast<std::int64_t>(i) - 1][ids[i]].item<double>();
  }
  return sum;
}

TEST_CASE("choices are scored as one pass over prompt and choice scores them") {
  Session session = open_fixture(kTinyModel);
  const auto prompts = ask_about_square(session);
  std::vector<std::string> texts;
  for (int i = 0; i < 20; ++i)
    texts.push_back("choice " + std::string(1 + i % 5, 'x') + std::to_string(i));
  const auto choices = encode_choices(session.generator->processor(), texts);
  CHECK(choices[0].back() ==
        *session.generator->processor().tokenizer().token_to_id("<end_of_utterance>"));
  std::vector<Request> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    requests.push_back({.id = i, .prompt = prompts[i].ids, .choices = choices});
  }
  session.generator->submit(make_group(prompts[0], std::move(requests)));
  const auto answers = run(*session.generator);
  REQUIRE(answers.size() == prompts.size());
  for (const std::size_t i : {std::size_t{0}, std::size_t{2}, prompts.size() - 1}) {
    REQUIRE(answers[i].choices.size() == choices.size());
    for (std::size_t c = 0; c < choices.size(); ++c) {
      CHECK(answers[i].choices[c].tokens == static_cast<std::int64_t>(choices[c].size()));
      CHECK(answers[i].choices[c].logprob ==
            Approx(score_directly(session, prompts[i], choices[c])).margin(2e-4));
    }
  }
  CHECK_THROWS_WITH(session.generator->answer({.prompt = {1}, .choices = choices}, {}),
                    "the prompt is too short: choices need at least two tokens in front");
  const auto shares = choice_probabilities({{-1.0, 1}, {-3.0, 6}}, false);
  CHECK(shares[0] == Approx(1 / (1 + std::exp(-2.0))));
  CHECK(choice_probabilities({{-1.0, 1}, {-3.0, 6}}, true)[1] == Approx(1 / (1 + std::exp(-0.5))));
}

TEST_CASE("a stop string ends the answer with the token that completes it") {
  Session session = open_fixture(kTinyModel);
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  GenerationOptions options = session.generation;
  options.max_new_tokens = 12;
  const Generation whole = generate(session, prompt, options);
  const auto& tokenizer = session.generator->processor().tokenizer();
  const std::string middle = tokenizer.decode(
      std::vector<std::int64_t>(whole.ids.begin() + 4, whole.ids.begin() + 6), false);
  options.stop_strings = {"no such text", middle};
  const Generation cut = generate(session, prompt, options);
  CHECK(cut.finish_reason == "stop");
  CHECK(cut.ids.size() <= 6);
  CHECK(std::equal(cut.ids.begin(), cut.ids.end(), whole.ids.begin()));
  CHECK(tokenizer.decode(cut.ids, false).find(middle) != std::string::npos);
}

TEST_CASE("options that don't go together are refused") {
  GenerationOptions options;
  options.num_return_sequences = 3;
  CHECK_THROWS_WITH(options.validate("here"),
                    "here: num_return_sequences doesn't go with the search: got 3, wanted 1 "
                    "(several answers need do_sample or num_beams)");
  options.num_beams = 2;
  CHECK_THROWS_WITH(options.validate("here"), Contains("got 3, wanted at most num_beams = 2"));
  options = {};
  options.top_p = 1.5;
  CHECK_THROWS_WITH(options.validate("here"),
                    "here: top_p is out of range: got 1.5, wanted above 0, at most 1");
  options = {};
  options.temperature = 0;
  CHECK_THROWS_WITH(options.validate("here"), Contains("temperature is out of range"));
}

TEST_CASE("choices that can't be told apart are refused") {
  CHECK_THROWS_WITH(check_choices({"yes", "yes"}), "--choices: a choice is given twice: got 'yes'");
  CHECK_THROWS_WITH(check_choices({"yes"}), Contains("nothing to choose from: got 1"));
  CHECK_THROWS_WITH(check_choices({"yes", " "}), "--choices: a choice is empty");
  const ScratchFolder folder;
  save_text(folder.path() / "lines.txt", "yes\r\n\nno, never\n");
  CHECK(load_choices(folder.path() / "lines.txt") == std::vector<std::string>{"yes", "no, never"});
  save_text(folder.path() / "list.json", R"(["a", [3]])");
  // A byte order mark is no part of the first choice, and lines end in any way.
  using Choices = std::vector<std::string>;
  const auto load = [&](const std::string& text) {
    return load_choices(folder.write("marked.txt", text));
  };
  CHECK(load("\xEF\xBB\xBFyes\r\nno\r\n") == Choices{"yes", "no"});
  CHECK(load("yes\rno") == Choices{"yes", "no"});
  CHECK(load("\xEF\xBB\xBF[\"yes\",1.10,-0,12345678901234567890123]") ==
        Choices{"yes", "1.10", "-0", "12345678901234567890123"});
  CHECK_THROWS_WITH(load("\xFF\xFEy"), Contains("marked.txt: the text is not UTF-8: got the byte "
                                                "order mark of UTF-16"));
  CHECK_THROWS_WITH(load("yes\nn\xF6\n"), Contains("marked.txt:2: the text is not UTF-8"));
  CHECK_THROWS_WITH(load(std::string("y\0n\0", 4)), Contains("marked.txt:1: a NUL byte"));
  CHECK_THROWS_WITH(load_choices(folder.path() / "list.json"),
                    Contains("list.json: wrong type: got array, wanted an array of strings"));
}

TEST_CASE("picture features come back from the disk as they were") {
  const ScratchFolder folder;
  Session session = open_fixture("smolvlm_odd");
  const Json golden = load_json(fixture("smolvlm_odd/golden.json"));
  const EncodedConversation prompt = encode(session, golden["generate"][3]);
  const Generation plain = generate(session, prompt, session.generation);
  const auto cache = std::make_shared<FeatureCache>(folder.path(), 1 << 24);
  session.generator->set_feature_cache(cache);
  CHECK((generate(session, prompt, session.generation) == plain));
  CHECK(cache->misses() == 1);
  CHECK((generate(session, prompt, session.generation) == plain));
  CHECK(cache->hits() == 1);
}

TEST_CASE("end ids come from generation_config.json, else from config.json") {
  CHECK(load_generation_options(fixture("smolvlm_odd")).eos_token_ids.size() == 2);
  const ScratchFolder folder;
  save_text(folder.path() / "config.json", R"({"text_config": {"eos_token_id": 7}})");
  CHECK(load_generation_options(folder.path()).eos_token_ids == std::vector<std::int64_t>{7});
  save_text(folder.path() / "generation_config.json", R"({"eos_token_id": ["x"]})");
  CHECK_THROWS_WITH(load_generation_options(folder.path()),
                    Contains("generation_config.json: eos_token_id: wrong type: got array, wanted "
                             "an id or a list of ids"));
}

}  // namespace
}  // namespace vlm::infer
