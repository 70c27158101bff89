// Beams, choices, groups that share a prompt, and the options of a search.
#include <c10/core/GradMode.h>

#include <nlohmann/json.hpp>

#include "infer/generator.h"
#include "infer/search/choices.h"
#include "tests/infer/prompts.h"
#include "tests/infer/sessions.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"

namespace vlm::infer {
namespace {

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
  if (!prompt.pixels.empty()) {
    group.pictures = std::make_shared<PictureFeatures>(PictureFeatures{prompt.pixels});
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
        {.prompt = prompts[i].ids, .options = options[i], .stream = i}, prompts[i].pixels));
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
  const at::Tensor embeddings = session.model->embed(at::tensor(ids, at::kLong).unsqueeze(0),
                                                     session.model->encode(prompt.pixels));
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
}  // namespace
}  // namespace vlm::infer
