// Answers against transformers', and what batches may not change.
#include "infer/generator.h"

#include <nlohmann/json.hpp>

#include "infer/answer_text.h"
#include "tests/infer/prompts.h"
#include "tests/infer/sessions.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

TEST_CASE("greedy answers about pictures equal transformers'") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny", "granite_tiny"}) {
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

TEST_CASE("answers from keys and values in fewer bits are near, and the same in a batch") {
  for (const auto& [storage, margin] :
       {std::pair(KvStorage::kBfloat16, 0.02), std::pair(KvStorage::kInt8, 0.1)}) {
    Session wide = open_fixture("smolvlm_tiny"), narrow = open_fixture("smolvlm_tiny");
    narrow.generator->set_kv_storage(storage);
    const Json golden = load_json(fixture("smolvlm_tiny/golden.json"));
    std::vector<EncodedConversation> prompts;
    for (const Json& one : golden["generate"]) prompts.push_back(encode(wide, one));
    GenerationOptions options = wide.generation;
    options.max_new_tokens = 12;
    const auto together = narrow.generator->generate(prompts, options);
    bool differs = false;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const Generation alone = generate(narrow, prompts[i], options);
      const Generation& beside = together[i].generations[0];
      CHECK(beside.ids == alone.ids);
      CHECK(beside.mean_logprob() == Approx(alone.mean_logprob()).margin(1e-4));
      const Generation exact = generate(wide, prompts[i], options);
      CHECK(alone.ids[0] == exact.ids[0]);
      CHECK(alone.logprobs[0] == Approx(exact.logprobs[0]).margin(margin));
      differs = differs || alone.logprobs != exact.logprobs;
    }
    CHECK(differs);
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
  request.on_step = [](std::span<const Hypothesis>) -> bool { throw std::runtime_error("closed"); };
  CHECK_THROWS_WITH(generator.answer(request, {}), "closed");
  CHECK(generator.is_idle());
  const bool is_same = generator.generate(prompts, options)[0].generations == expected.generations;
  CHECK(is_same);
}

TEST_CASE("special tokens stay in the answer where they are asked for, but for its end") {
  Session session = open_fixture("granite_tiny");
  const Tokenizer& tokenizer = session.generator->processor().tokenizer();
  const Json golden = load_json(fixture("granite_tiny/golden.json"));
  int different = 0, ended = 0;
  for (const Json& one : golden["generate"]) {
    INFO(one["name"]);
    GenerationOptions options = session.generation;
    options.max_new_tokens = one["max_new_tokens"];
    options.keep_special_tokens = true;
    const Generation answer = generate(session, encode(session, one), options);
    const auto kept = one["kept_text"].get<std::string>();
    CHECK(answer.text == without_leading_space(kept));
    AnswerStream stream(tokenizer, options);
    std::string streamed;
    for (const std::int64_t id : answer.ids) streamed += stream.add(id);
    CHECK(streamed + stream.finish() == answer.text);
    different += kept != one["text"].get<std::string>() ? 1 : 0;
    ended += answer.finish_reason == "stop" ? 1 : 0;
  }
  CHECK(different >= 2);
  CHECK(ended >= 1);
}

TEST_CASE("a token outside of the embedding is refused in prompts") {
  Session session = open_fixture("granite_tiny");
  const Processor& processor = session.generator->processor();
  CHECK_THROWS_WITH(
      processor.encode_prompt(make_conversation("What is<end_of_utterance>this?", {}, ""),
                              std::vector<Image>{}),
      Contains("the prompt has a token that the model has no embedding for: got "
               "<end_of_utterance>, id 399, wanted ids below 399"));
}

TEST_CASE("an answer begins with no space, whole and streamed") {
  Session session = open_fixture(kTinyModel);
  const Tokenizer& tokenizer = session.generator->processor().tokenizer();
  for (const std::string text : {" circle", "  two words", "none", " ", " a b"}) {
    const GenerationOptions plain;
    AnswerStream stream(tokenizer, plain);
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
