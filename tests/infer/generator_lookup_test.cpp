// Prompt lookup changes no answer, and takes fewer passes.
#include <nlohmann/json.hpp>

#include "infer/generator.h"
#include "tests/infer/prompts.h"
#include "tests/infer/sessions.h"
#include "tests/support/tensors.h"

namespace vlm::infer {
namespace {

void check_same_answer(const Generation& found, const Generation& expected) {
  CHECK(found.ids == expected.ids);
  CHECK(found.text == expected.text);
  CHECK(found.finish_reason == expected.finish_reason);
  REQUIRE(found.logprobs.size() == expected.logprobs.size());
  for (std::size_t i = 0; i < found.logprobs.size(); ++i) {
    CHECK(found.logprobs[i] == Approx(expected.logprobs[i]).margin(1e-4));
  }
}

// Alone, and again with earlier answers to guess from; then all prompts together.
void check_model(const std::string& name, const GenerationOptions& plain) {
  INFO(name);
  Session session = open_fixture(name), other = open_fixture(name);
  const Json golden = load_json(fixture(name + "/golden.json"));
  GenerationOptions lookup = plain;
  std::vector<EncodedConversation> prompts;
  for (const Json& one : golden["generate"]) prompts.push_back(encode(session, one));
  Generator& generator = *session.generator;
  for (const std::int64_t most : {1, 7, 15}) {
    lookup.prompt_lookup_num_tokens = most;
    for (const EncodedConversation& prompt : prompts) {
      const Generation expected = generate(other, prompt, plain);
      check_same_answer(generate(session, prompt, lookup), expected);
      generator.reset_timing();
      check_same_answer(generate(session, prompt, lookup), expected);
      CHECK(generator.timing().right_guesses <= generator.timing().guessed_tokens);
      // What was answered before is guessed, but for the tokens in front.
      if (expected.ids.size() > 4) CHECK(generator.timing().right_guesses > 0);
    }
  }
  const auto expected = other.generator->generate(prompts, plain);
  const auto found = generator.generate(prompts, lookup);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    check_same_answer(found[i].generations[0], expected[i].generations[0]);
  }
}

TEST_CASE("prompt lookup: greedy answers stay the same") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd", "granite_tiny"}) {
    GenerationOptions options = open_fixture(name).generation;
    options.max_new_tokens = 20;
    check_model(name, options);
    options.repetition_penalty = 1.3;
    options.min_new_tokens = 6;
    check_model(name, options);
  }
}

TEST_CASE("prompt lookup: draws of a seed stay the same") {
  GenerationOptions options = open_fixture(kTinyModel).generation;
  options.max_new_tokens = 20;
  options.do_sample = true;
  options.temperature = 0.3;
  options.seed = 11;
  check_model("smolvlm_tiny", options);
}

TEST_CASE(
    "prompt lookup: a stop string, the length and a callback end an answer amid its guesses") {
  Session session = open_fixture(kTinyModel);
  const Json golden = load_json(fixture("smolvlm_tiny/golden.json"));
  const EncodedConversation prompt = encode(session, golden["generate"][0]);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 24;
  options.prompt_lookup_num_tokens = 15;
  const Generation whole = generate(session, prompt, options);
  REQUIRE(whole.ids.size() > 8);
  for (std::size_t length = 1; length < whole.ids.size(); ++length) {
    GenerationOptions shorter = options;
    shorter.max_new_tokens = static_cast<std::int64_t>(length);
    const Generation cut = generate(session, prompt, shorter);
    CHECK(cut.ids == std::vector(whole.ids.begin(), whole.ids.begin() + std::ptrdiff_t(length)));
    CHECK(cut.finish_reason == "length");
  }
  std::vector<std::int64_t> streamed;
  const auto answers =
      session.generator->generate({prompt}, options, [&](std::size_t, std::int64_t id) {
        streamed.push_back(id);
        return streamed.size() < 6;
      });
  CHECK(streamed == std::vector(whole.ids.begin(), whole.ids.begin() + 6));
  CHECK(answers[0].generations[0].ids == streamed);
  CHECK(answers[0].generations[0].finish_reason == "interrupted");
}

TEST_CASE("prompt lookup: beams go without") {
  Session session = open_fixture(kTinyModel), other = open_fixture(kTinyModel);
  const Json golden = load_json(fixture("smolvlm_tiny/golden.json"));
  const EncodedConversation prompt = encode(session, golden["generate"][0]);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 12;
  options.num_beams = 3;
  const auto expected = other.generator->generate({prompt}, options);
  options.prompt_lookup_num_tokens = 7;
  const auto found = session.generator->generate({prompt}, options);
  check_same_answer(found[0].generations[0], expected[0].generations[0]);
  CHECK(session.generator->timing().guessed_tokens == 0);
}

TEST_CASE("prompt lookup guesses at most 15 tokens") {
  GenerationOptions options;
  options.prompt_lookup_num_tokens = 16;
  CHECK_THROWS_WITH(options.validate("here"),
                    "here: prompt_lookup_num_tokens is out of range: got 16, wanted 0 to 15");
}

}  // namespace
}  // namespace vlm::infer
