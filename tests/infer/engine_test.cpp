// One engine, many callers: each gets the answer that it would get alone, in its turn.
#include "infer/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "infer/search/choices.h"
#include "tests/infer/engine_callers.h"

namespace vlm::infer {
namespace {

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
