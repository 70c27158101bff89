// One engine, many callers: answers as alone, in pieces, cancelled, refused, failed and drained.
#include "infer/engine/engine.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "infer/answer_text.h"
#include "tests/infer/engine_callers.h"
#include "tests/infer/prompts.h"
#include "tests/infer/sessions.h"
#include "tests/support/tensors.h"
#include "tests/support/watched_model.h"

namespace vlm::infer {
namespace {

std::vector<EncodedConversation> golden_prompts(const Session& session, const std::string& name) {
  std::vector<EncodedConversation> prompts;
  const Json golden = load_json(fixture(name + "/golden.json"));
  for (const Json& one : golden["generate"]) prompts.push_back(encode(session, one));
  REQUIRE_FALSE(prompts.empty());
  return prompts;
}

void check_same(const Generation& found, const Generation& wanted) {
  CHECK(found.ids == wanted.ids);
  CHECK(found.text == wanted.text);
  CHECK(found.finish_reason == wanted.finish_reason);
  CHECK(found.mean_logprob() == Approx(wanted.mean_logprob()).margin(1e-4));
}

TEST_CASE("the engine answers as the generator alone, one at a time and many together") {
  for (const std::string name : {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny"}) {
    Session session = open_fixture(name);
    const auto prompts = golden_prompts(session, name);
    GenerationOptions options = session.generation;
    options.max_new_tokens = 12;
    std::vector<Generation> wanted;
    for (const auto& prompt : prompts) wanted.push_back(generate(session, prompt, options));
    Engine engine(*session.generator, {.max_running = 5, .max_waiting = 100});
    std::vector<double> alone;  // of the first token
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      INFO(name << " " << i);
      const RequestAnswer answer =
          engine.submit(EngineRequest::of(prompts[i], {.id = 7, .options = options})).get();
      CHECK(answer.id == 7);
      CHECK(answer.outcome == Outcome::kAnswered);
      CHECK(answer.prompt_tokens == std::ssize(prompts[i].ids));
      CHECK(answer.media_tokens == prompts[i].pixels.tokens);
      check_same(answer.generations.at(0), wanted[i]);
      alone.push_back(answer.generations[0].logprobs[0]);
    }
    std::vector<std::future<RequestAnswer>> answers;
    for (std::size_t i = 0; i < 64; ++i) {
      answers.push_back(
          engine.submit(EngineRequest::of(prompts[i % prompts.size()], {.options = options})));
    }
    for (std::size_t i = 0; i < answers.size(); ++i) {
      INFO(name << " " << i);
      const RequestAnswer answer = answers[i].get();
      check_same(answer.generations.at(0), wanted[i % prompts.size()]);
      // What comes out of the prompt is the same to the bit, whatever ran beside.
      CHECK(answer.generations[0].logprobs[0] == alone[i % prompts.size()]);
    }
    const EngineStats stats = engine.stats();
    CHECK(stats.answered == std::ssize(prompts) + 64);
    CHECK(stats.running + stats.waiting == 0);
    CHECK(stats.media_bytes == 0);
  }
}

TEST_CASE("families whose positions and prompts differ answer as the generator alone") {
  for (const std::string name :
       {"qwen2_vl_tiny", "qwen2_5_vl_tiny", "qwen3_vl_tiny", "internvl_tiny", "internvl_chat_tiny",
        "granite_tiny", "phi3_tiny", "llama_tiny", "qwen3_tiny"}) {
    INFO(name);
    Session session = open_fixture(name);
    const bool shows = session.generator->processor().takes_media();
    GenerationOptions options = session.generation;
    options.max_new_tokens = 8;
    std::string text;
    for (const int words : {1, 60, 150}) {
      while (std::ssize(text) < words * 6) text += " shape";
      Json one = {{"images", Json::array()}, {"question", text}, {"system", nullptr}};
      if (shows && words > 1) one["images"] = {"square", "wide"};
      const EncodedConversation prompt = encode(session, one);
      if (std::ssize(prompt.ids) + 8 > session.generator->max_positions()) continue;
      INFO(words << " words, " << prompt.ids.size() << " tokens");
      const Generation wanted = generate(session, prompt, options);
      Engine engine(*session.generator,
                    {.kept_media_bytes = 1 << 20, .kept_prefix_bytes = 1 << 24});
      for (int again = 0; again < 2; ++again) {
        check_same(
            engine.submit(EngineRequest::of(prompt, {.options = options})).get().generations.at(0),
            wanted);
      }
    }
  }
}

TEST_CASE("several answers, beams and choices of any width run beside narrow requests") {
  Session session = open_fixture(kTinyModel);
  const auto prompts = golden_prompts(session, "smolvlm_tiny");
  const EncodedConversation& prompt = prompts[1];
  GenerationOptions plain = session.generation;
  plain.max_new_tokens = 9;
  GenerationOptions beams = plain, samples = plain;
  beams.num_beams = 4;
  beams.num_return_sequences = 3;
  samples.num_return_sequences = 5;
  samples.do_sample = true;
  samples.seed = 11;
  const auto choices = encode_choices(session.generator->processor(),
                                      {"yes", "no", "a dog", "two dogs", "red", "blue sky"});
  const auto ask_alone = [&](const GenerationOptions& options, bool chooses) {
    Request request{.prompt = prompt.ids, .layout = prompt.layout, .options = options};
    if (chooses) request.choices = choices;
    return session.generator->answer(std::move(request), prompt.pixels);
  };
  const RequestAnswer wanted_beams = ask_alone(beams, false);
  const RequestAnswer wanted_samples = ask_alone(samples, false);
  const RequestAnswer wanted_choices = ask_alone(plain, true);
  const Generation wanted = generate(session, prompt, plain);
  Engine engine(*session.generator, {.max_running = 4});
  std::vector<std::future<RequestAnswer>> narrow, wide_beams, wide_samples, chosen;
  for (int round = 0; round < 4; ++round) {
    narrow.push_back(engine.submit(EngineRequest::of(prompt, {.options = plain})));
    wide_beams.push_back(engine.submit(EngineRequest::of(prompt, {.options = beams})));
    wide_samples.push_back(engine.submit(EngineRequest::of(prompt, {.options = samples})));
    chosen.push_back(
        engine.submit(EngineRequest::of(prompt, {.options = plain, .choices = choices})));
  }
  for (int round = 0; round < 4; ++round) {
    const auto at = static_cast<std::size_t>(round);
    check_same(narrow[at].get().generations.at(0), wanted);
    const RequestAnswer of_beams = wide_beams[at].get(), of_samples = wide_samples[at].get();
    REQUIRE(of_beams.generations.size() == 3);
    REQUIRE(of_samples.generations.size() == 5);
    for (std::size_t i = 0; i < 3; ++i) {
      check_same(of_beams.generations[i], wanted_beams.generations[i]);
      CHECK(of_beams.generations[i].score ==
            Approx(wanted_beams.generations[i].score).margin(1e-4));
    }
    for (std::size_t i = 0; i < 5; ++i) {
      check_same(of_samples.generations[i], wanted_samples.generations[i]);
    }
    const RequestAnswer of_choices = chosen[at].get();
    REQUIRE(of_choices.choices.size() == choices.size());
    for (std::size_t i = 0; i < choices.size(); ++i) {
      CHECK(of_choices.choices[i].logprob ==
            Approx(wanted_choices.choices[i].logprob).margin(1e-4));
      CHECK(of_choices.choices[i].tokens == wanted_choices.choices[i].tokens);
    }
  }
}

TEST_CASE("requests leave the queue in the order of their arrival, the wide ones too") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 6;
  options.eos_token_ids = {};
  Engine engine(*session.generator, {.max_running = 2});
  std::mutex mutex;
  std::vector<int> started;
  std::vector<std::future<void>> done;
  for (int i = 0; i < 12; ++i) {
    GenerationOptions own = options;
    if (i % 3 == 1) own.num_beams = 6;
    auto promise = std::make_shared<std::promise<void>>();
    done.push_back(promise->get_future());
    engine.submit(EngineRequest::of({.ids = {1, 278, 28, 223}}, {.options = own}),
                  {.on_started =
                       [&, i] {
                         const std::lock_guard lock(mutex);
                         started.push_back(i);
                       },
                   .on_done = [promise](RequestAnswer) { promise->set_value(); }});
  }
  for (auto& one : done) one.get();
  CHECK(started == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
}

// Passes of a model wait here until they are let on.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    is_reached_ = allowed_ == 0;
    changed_.notify_all();
    changed_.wait(lock, [this] { return allowed_ != 0; });
    is_reached_ = false;
    if (allowed_ > 0) --allowed_;
  }
  void open() { allow(-1); }
  void close() { allow(0); }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return is_reached_; });
  }
  void let_one_pass() {
    allow(1);
    wait_until_reached();
  }

 private:
  void allow(int passes) {
    const std::lock_guard lock(mutex_);
    allowed_ = passes;
    if (passes != 0) is_reached_ = false;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int allowed_ = -1;  // passes; -1: all
  bool is_reached_ = false;
};

TEST_CASE("a request can be cancelled in every state, and its place is free") {
  Session session = open_fixture(kTinyModel);
  const auto processor =
      std::shared_ptr<const Processor>(&session.generator->processor(), [](const Processor*) {});
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
  Generator generator(
      std::make_shared<WatchedModel>(session.model, [&](const at::Tensor&) { gate.pass(); }),
      processor);
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

TEST_CASE("what one request makes the model throw costs that request alone") {
  Session session = open_fixture(kTinyModel);
  const auto processor =
      std::shared_ptr<const Processor>(&session.generator->processor(), [](const Processor*) {});
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
        processor);
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

TEST_CASE("prompts that can't be answered are refused, and a full queue refuses to take more") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 30;
  options.eos_token_ids = {};
  Gate gate;
  const auto processor =
      std::shared_ptr<const Processor>(&session.generator->processor(), [](const Processor*) {});
  Generator generator(
      std::make_shared<WatchedModel>(session.model, [&](const at::Tensor&) { gate.pass(); }),
      processor);
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
  const auto processor =
      std::shared_ptr<const Processor>(&session.generator->processor(), [](const Processor*) {});
  Generator generator(
      std::make_shared<WatchedModel>(session.model, [&](const at::Tensor&) { gate.pass(); }),
      processor);
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

TEST_CASE("32 threads ask about pictures, and none gets another's answer") {
  Session session = open_fixture("smolvlm_odd");
  const auto prompts = golden_prompts(session, "smolvlm_odd");
  GenerationOptions options = session.generation;
  options.max_new_tokens = 8;
  std::vector<Generation> wanted;
  for (const auto& prompt : prompts) wanted.push_back(generate(session, prompt, options));
  Engine engine(*session.generator, {.max_running = 6,
                                     .max_waiting = 1000,
                                     .kept_media_bytes = 100'000,
                                     .kept_prefix_bytes = 1'000'000});
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < 32; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < 6; ++i) {
        const std::size_t which = (t * 5 + i * 3) % prompts.size();
        Collected collected;
        const auto number = engine.submit(
            EngineRequest::of(prompts[which], {.id = t, .options = options}), collected.events());
        if ((t + i) % 10 == 0) engine.cancel(number);
        const RequestAnswer answer = collected.wait();
        if (answer.outcome == Outcome::kCancelled) continue;
        const bool is_right = answer.id == t && answer.generations.at(0).ids == wanted[which].ids &&
                              collected.text() == wanted[which].text;
        wrong += is_right ? 0 : 1;
      }
    });
  }
  threads.clear();
  CHECK(wrong == 0);
  CHECK(engine.stats().kept_media_bytes <= 100'000);
  CHECK(engine.stats().kept_prefix_bytes <= 1'000'000);
  CHECK(engine.stats().media_bytes == 0);
}

TEST_CASE("pictures and prompts that were there before are used again, and change no answer") {
  Session session = open_fixture(kTinyModel);
  const auto ask_about = [&](const Json& pictures) {
    EncodedConversation prompt =
        encode(session, {{"images", pictures}, {"question", "What is this?"}, {"system", nullptr}});
    for (int i = 0; i < 150; ++i) prompt.ids.push_back(20 + i % 40);
    return prompt;
  };
  const EncodedConversation first = ask_about({"square", "wide"});
  const EncodedConversation other = ask_about({"tall", "wide"});
  EncodedConversation second = first;
  for (int i = 0; i < 90; ++i) second.ids.push_back(20 + i % 50);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 6;
  const std::vector<const EncodedConversation*> prompts = {&first, &second, &other};
  std::vector<RequestAnswer> fresh, again;
  const auto ask = [&](Engine& engine, const EncodedConversation& prompt) {
    return engine.submit(EngineRequest::of(prompt, {.options = options})).get();
  };
  for (const EncodedConversation* prompt : prompts) {
    Engine engine(*session.generator);
    fresh.push_back(ask(engine, *prompt));
  }
  Engine engine(*session.generator,
                {.kept_media_bytes = 10'000'000, .kept_prefix_bytes = 100'000'000});
  for (const EncodedConversation* prompt : prompts) {
    again.push_back(ask(engine, *prompt));
  }
  const RequestAnswer repeated = ask(engine, second);
  for (std::size_t i = 0; i < 3; ++i) {
    INFO(i);
    CHECK(again[i].generations.at(0).logprobs == fresh[i].generations.at(0).logprobs);
  }
  CHECK(repeated.generations.at(0).logprobs == fresh[1].generations.at(0).logprobs);
  CHECK(again[0].cached_tokens == 0);
  const std::int64_t whole = std::ssize(first.ids) / 128 * 128;
  REQUIRE(whole > 0);
  CHECK(again[1].cached_tokens == whole);
  CHECK(repeated.cached_tokens == (std::ssize(second.ids) - 1) / 128 * 128);
  CHECK(again[2].cached_tokens < whole);
  CHECK(engine.stats().media_hits > 0);
}

}  // namespace
}  // namespace vlm::infer
