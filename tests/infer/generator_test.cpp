// Answers against transformers', and what batches may not change.
#include "infer/generator.h"

#include <nlohmann/json.hpp>

#include "data/media.h"
#include "infer/batch/batch_runner.h"
#include "infer/search.h"
#include "infer/session.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

Session open(const std::string& name) {
  return open_session({.model = fixture(name).string()}, {.device = "cpu"});
}

EncodedConversation encode(const Session& session, const Json& one) {
  std::vector<Image> images;
  for (const Json& name : one["images"]) {
    images.push_back(data::load_image(fixture("pictures/" + name.get<std::string>() + ".png")));
  }
  const std::string system = one["system"].is_null() ? "" : one["system"].get<std::string>();
  return session.generator->processor().encode_prompt(
      make_conversation(one["question"], images.size(), system), images);
}

TEST_CASE("greedy answers about pictures equal transformers'") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny"}) {
    Session session = open(name);
    const Json golden = load_json(fixture(name + "/golden.json"));
    for (const Json& one : golden["generate"]) {
      INFO(name << ": " << one["name"]);
      const EncodedConversation prompt = encode(session, one);
      CHECK(prompt.ids == one["prompt_token_ids"].get<std::vector<std::int64_t>>());
      GenerationOptions options = session.generation;
      options.max_new_tokens = one["max_new_tokens"];
      const Generation answer = session.generator->generate({prompt}, options)[0];
      CHECK(answer.ids == one["token_ids"].get<std::vector<std::int64_t>>());
      const auto logprobs = one["token_logprobs"].get<std::vector<double>>();
      REQUIRE(answer.logprobs.size() == logprobs.size());
      for (std::size_t i = 0; i < logprobs.size(); ++i) {
        CHECK(answer.logprobs[i] == Approx(logprobs[i]).margin(1e-4));
      }
      CHECK(answer.text == one["text"]);
      CHECK(answer.finish_reason == one["finish_reason"]);
    }
  }
}

TEST_CASE("a batch gives what its prompts give alone") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd"}) {
    Session session = open(name);
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
      const Generation alone = session.generator->generate({prompts[i]}, options)[0];
      CHECK(together[i].ids == alone.ids);
      CHECK(together[i].finish_reason == alone.finish_reason);
      CHECK(together[i].mean_logprob() == Approx(alone.mean_logprob()).margin(1e-4));
      CHECK(streamed[i] == alone.ids);
    }
  }
}

TEST_CASE("answers end at the limit, at an end id, or at the last position") {
  Session session = open("smolvlm_tiny");
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  GenerationOptions options = session.generation;
  options.max_new_tokens = 0;
  CHECK(session.generator->generate({prompt}, options)[0].ids.empty());
  options.max_new_tokens = 5;
  const Generation five = session.generator->generate({prompt}, options)[0];
  CHECK(five.ids.size() == 5);
  CHECK(five.finish_reason == "length");
  options.eos_token_ids = {five.ids[1]};
  const Generation ended = session.generator->generate({prompt}, options)[0];
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
  Session session = open("smolvlm_tiny");
  int left = 3;
  const Generation cut =
      session.generator->generate({EncodedConversation{.ids = {1, 278, 28}}}, session.generation,
                                  [&](std::size_t, std::int64_t) { return --left > 0; })[0];
  CHECK(cut.ids.size() == 3);
  CHECK(cut.finish_reason == "interrupted");
}

TEST_CASE("an adapter answers merged as it does in training") {
  const std::string adapter = fixture("smolvlm_tiny/adapters/plain").string();
  const Session plain = open("smolvlm_tiny");
  const Session adapted = open_session(
      {.model = fixture("smolvlm_tiny").string(), .adapter = adapter}, {.device = "cpu"});
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  CHECK(plain.generator->generate({prompt}, plain.generation)[0].logprobs !=
        adapted.generator->generate({prompt}, plain.generation)[0].logprobs);
}

TEST_CASE("greedy search takes the lowest of equals") {
  const NextTokens next = greedy_search(at::tensor({0.f, 2.f, 2.f, 1.f, 5.f, 1.f}).view({2, 3}));
  CHECK(next.ids == std::vector<std::int64_t>{1, 1});
  CHECK(next.logprobs[1] == Approx(5 - std::log(std::exp(1.0) * 2 + std::exp(5.0))));
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
