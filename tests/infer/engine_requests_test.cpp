// Requests that leave, fail, are refused, or wait for room; an engine that is drained.
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>

#include "infer/engine/engine.h"
#include "tests/infer/engine_callers.h"
#include "tests/support/tensors.h"
#include "tests/support/watched_model.h"

namespace vlm::infer {
namespace {

TEST_CASE("a request can be cancelled in every state, and its place is free") {
  Session session = open_fixture(kTinyModel);
  const auto prompts = golden_prompts(session, "smolvlm_tiny");
  const auto with_picture = std::ranges::find_if(
      prompts, [](const EncodedConversation& one) { return !one.pixels.empty(); });
  GenerationOptions options = session.generation;
  options.max_new_tokens = 40;
  options.eos_token_ids = {};
  const EncodedConversation text{.ids = {1, 278, 28, 223}};
  EncodedConversation long_text = text;  // prefilled in several pieces
  for (int i = 0; i < 300; ++i) long_text.ids.push_back(20 + i % 50);
  Gate gate;
  Generator generator(watch_passes(session, gate), borrow_processor(session));
  Engine engine(generator, {.max_running = 1});
  const auto cancel_at = [&](const EncodedConversation& prompt, int pass, bool is_queued) {
    gate.close();
    Collected first, second;
    const auto one = engine.submit(EngineRequest::of(prompt, {.options = options}), first.events());
    const auto two = engine.submit(EngineRequest::of(text, {.options = options}), second.events());
    gate.wait_until_reached();
    for (int i = 0; i < pass; ++i) gate.let_one_pass();
    engine.cancel(is_queued ? two : one);
    gate.open();
    const RequestAnswer cancelled = (is_queued ? second : first).wait();
    CHECK(cancelled.outcome == Outcome::kCancelled);
    CHECK(cancelled.error == "cancelled");
    const RequestAnswer other = (is_queued ? first : second).wait();
    CHECK(other.outcome == Outcome::kAnswered);
    CHECK(other.generations.at(0).ids.size() == 40);
    CHECK(engine.stats().running + engine.stats().waiting == 0);
    CHECK(first.ends == 1);
    CHECK(second.ends == 1);
  };
  cancel_at(text, 0, true);            // in the queue
  cancel_at(long_text, 0, false);      // while its prompt goes in
  cancel_at(*with_picture, 0, false);  // with its picture
  cancel_at(text, 5, false);           // while it decodes
  engine.cancel(1);                    // done long ago
  engine.cancel(12345);                // never there
  CHECK(engine.stats().cancelled == 4);
}

TEST_CASE("a request leaves while those behind it have not begun, and they are answered") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 9;
  options.eos_token_ids = {};
  EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  for (int i = 0; i < 300; ++i) prompt.ids.push_back(20 + i % 50);
  const Generation wanted = generate(session, prompt, options);
  for (const std::size_t leaving : {0, 2, 3}) {
    INFO(leaving);
    Gate gate;
    Generator generator(watch_passes(session, gate), borrow_processor(session));
    Engine engine(generator, {.max_running = 4});
    gate.close();
    std::vector<Collected> callers(4);
    std::vector<std::uint64_t> numbers;
    for (Collected& one : callers) {
      numbers.push_back(
          engine.submit(EngineRequest::of(prompt, {.options = options}), one.events()));
      gate.wait_until_reached();
    }
    gate.let_one_pass();
    engine.cancel(numbers[leaving]);
    gate.open();
    for (std::size_t i = 0; i < callers.size(); ++i) {
      const RequestAnswer answer = callers[i].wait();
      CHECK(answer.outcome == (i == leaving ? Outcome::kCancelled : Outcome::kAnswered));
      if (i != leaving) check_same(answer.generations.at(0), wanted);
    }
  }
}

TEST_CASE("what one request makes the model throw costs that request alone") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 10;
  options.eos_token_ids = {};
  const EncodedConversation good{.ids = {1, 278, 28, 223}}, bad{.ids = {1, 278, 99, 28}};
  const Generation wanted = generate(session, good, options);
  const std::int64_t late_id = generate(session, bad, options).ids.at(4);
  for (const bool is_late : {false, true}) {
    INFO("in decoding: " << is_late);
    // Fails whenever the bad one's token is in a pass: in its prefill, or in a step of all.
    Generator generator(
        std::make_shared<WatchedModel>(
            session.model,
            [&](const at::Tensor& ids) {
              const bool is_step = ids.size(1) == 1;
              TORCH_CHECK(is_late != is_step || !ids.eq(is_late ? late_id : 99).any().item<bool>(),
                          "no such thing");
            }),
        borrow_processor(session));
    const bool hits_good = is_late && std::ranges::find(wanted.ids, late_id) != wanted.ids.end();
    REQUIRE_FALSE(hits_good);
    Engine engine(generator, {.max_running = 4});
    std::vector<std::future<RequestAnswer>> answers;
    for (int i = 0; i < 8; ++i) {
      answers.push_back(
          engine.submit(EngineRequest::of(i == 3 ? bad : good, {.options = options})));
    }
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const RequestAnswer answer = answers[i].get();
      if (i == 3) {
        CHECK(answer.outcome == Outcome::kFailed);
        CHECK(answer.error == "no such thing");
      } else {
        CHECK(answer.outcome == Outcome::kAnswered);
        check_same(answer.generations.at(0), wanted);
      }
    }
  }
}

TEST_CASE("logits that fail for several rows come right for each alone") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 10;
  options.eos_token_ids = {};
  const std::vector<EncodedConversation> prompts = {
      {.ids = {1, 278, 28, 223}}, {.ids = {1, 278, 28}}, {.ids = {1, 30, 31, 32, 33}}};
  int failures = 0;
  Generator generator(std::make_shared<WatchedModel>(
                          session.model, [](const at::Tensor&) {},
                          [&](const at::Tensor& hidden) {
                            const std::int64_t rows = hidden.numel() / hidden.size(-1);
                            if (rows > 1) ++failures;
                            TORCH_CHECK(rows == 1, "no memory for so many rows");
                          }),
                      borrow_processor(session));
  Engine engine(generator, {.max_running = 3});
  std::vector<std::future<RequestAnswer>> answers;
  for (const EncodedConversation& prompt : prompts) {
    answers.push_back(engine.submit(EngineRequest::of(prompt, {.options = options})));
  }
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const RequestAnswer answer = answers[i].get();
    CHECK(answer.outcome == Outcome::kAnswered);
    check_same(answer.generations.at(0), generate(session, prompts[i], options));
  }
  CHECK(failures > 0);
}

TEST_CASE("prompts that can't be answered are refused, and a full queue refuses to take more") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 30;
  options.eos_token_ids = {};
  Gate gate;
  Generator generator(watch_passes(session, gate), borrow_processor(session));
  Engine engine(generator, {.max_running = 1, .max_waiting = 2});
  const RequestAnswer refused =
      engine.submit(EngineRequest::of({.ids = std::vector<std::int64_t>(600, 20)}, {})).get();
  CHECK(refused.outcome == Outcome::kRefused);
  CHECK_THAT(refused.error, Contains("the prompt is too long: got 600 tokens"));
  const EncodedConversation prompt{.ids = {1, 278, 28}};
  gate.close();
  std::vector<std::future<RequestAnswer>> taken;
  taken.push_back(engine.submit(EngineRequest::of(prompt, {.options = options})));
  gate.wait_until_reached();
  for (int i = 0; i < 2; ++i) {
    taken.push_back(engine.submit(EngineRequest::of(prompt, {.options = options})));
  }
  CHECK_THROWS_AS(engine.submit(EngineRequest::of(prompt, {.options = options})), EngineFull);
  CHECK_THROWS_WITH(engine.submit(EngineRequest::of(prompt, {.options = options})),
                    "too many requests wait: got 2 that wait, wanted at most 2 (try again later)");
  gate.open();
  for (auto& one : taken) CHECK(one.get().outcome == Outcome::kAnswered);
}

TEST_CASE("requests enter as far as their keys and values have room") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 28;
  options.eos_token_ids = {};
  const EncodedConversation prompt{.ids = std::vector<std::int64_t>(100, 20)};
  const Generation wanted = generate(session, prompt, options);
  const KvCache cache(session.model->cache_shape(), 1, at::kFloat);
  const std::int64_t one = cache.bytes_of(1, 100, 28);
  Engine engine(*session.generator, {.max_running = 8, .cache_bytes = one * 5 / 2});
  std::vector<std::future<RequestAnswer>> answers;
  for (int i = 0; i < 6; ++i) {
    answers.push_back(engine.submit(EngineRequest::of(prompt, {.options = options})));
  }
  std::int64_t most = 0, most_bytes = 0;
  for (auto& answer : answers) {
    while (answer.wait_for(std::chrono::microseconds(100)) != std::future_status::ready) {
      most = std::max(most, engine.stats().running);
      most_bytes = std::max(most_bytes, engine.stats().cache_bytes);
    }
    check_same(answer.get().generations.at(0), wanted);
  }
  CHECK(most <= 2);
  CHECK(most_bytes <= one * 5 / 2);
  GenerationOptions wide = options;
  wide.num_beams = 3;
  const RequestAnswer refused = engine.submit(EngineRequest::of(prompt, {.options = wide})).get();
  CHECK(refused.outcome == Outcome::kRefused);
  CHECK_THAT(refused.error, Contains("takes more memory than there is for keys and values"));
  check_same(engine.submit(EngineRequest::of(prompt, {.options = options})).get().generations[0],
             wanted);
}

TEST_CASE("an engine that is drained refuses, ends what waits and finishes what runs") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 20;
  options.eos_token_ids = {};
  Gate gate;
  Generator generator(watch_passes(session, gate), borrow_processor(session));
  const EncodedConversation prompt{.ids = {1, 278, 28}};
  {
    Engine engine(generator, {.max_running = 1});
    gate.close();
    auto running = engine.submit(EngineRequest::of(prompt, {.options = options}));
    gate.wait_until_reached();
    auto waiting = engine.submit(EngineRequest::of(prompt, {.options = options}));
    std::thread drain([&] { engine.drain(60); });
    while (true) {
      try {
        auto late = engine.submit(EngineRequest::of(prompt, {.options = options}));
      } catch (const EngineStopped&) {
        break;
      } catch (const EngineFull&) {  // the other thread hasn't come to it
      }
      std::this_thread::yield();
    }
    gate.open();
    drain.join();
    CHECK(running.get().outcome == Outcome::kAnswered);
    CHECK(waiting.get().outcome == Outcome::kStopped);
    CHECK_THROWS_WITH(engine.submit(EngineRequest::of(prompt, {})), "no more requests are taken");
  }
  Engine engine(generator, {.max_running = 1});
  auto running = engine.submit(EngineRequest::of(prompt, {.options = options}));
  engine.drain(0);
  const RequestAnswer stopped = running.get();
  CHECK((stopped.outcome == Outcome::kStopped || stopped.outcome == Outcome::kAnswered));
}

}  // namespace
}  // namespace vlm::infer
