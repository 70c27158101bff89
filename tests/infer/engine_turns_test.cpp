// Engines that share a machine: turns in order, places by waiting time.
#include "infer/engine/engine_turns.h"

#include <atomic>
#include <thread>
#include <vector>

#include "tests/infer/engine_callers.h"

namespace vlm::infer {
namespace {

using Clock = std::chrono::steady_clock;
using Need = EngineTurns::Need;

TEST_CASE("turns come one at a time, in the order in which they were asked for") {
  EngineTurns turns(4);
  std::vector<int> order;
  std::atomic<int> inside{0}, asked{0};
  std::vector<std::thread> threads;
  auto first = turns.take();
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&, i] {
      ++asked;
      const auto turn = turns.take();
      CHECK(++inside == 1);
      order.push_back(i);
      --inside;
    });
    while (asked <= i) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  CHECK(order.empty());
  first.reset();
  for (std::thread& thread : threads) thread.join();
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE("a free place is for the engine whose request has waited longest") {
  EngineTurns turns(4);
  const int a = 0, b = 0;
  const auto now = Clock::now(), later = now + std::chrono::seconds(1);
  CHECK(turns.note(&a, {.running = 0, .waiting_since = now}) == 4);
  CHECK(turns.note(&a, {.running = 3}) == 3);
  CHECK(turns.note(&b, {.running = 0, .waiting_since = later}) == 1);
  CHECK(turns.note(&a, {.running = 3, .waiting_since = now}) == 4);
  CHECK(turns.note(&b, {.running = 0, .waiting_since = later}) == 0);
  CHECK(turns.note(&a, {.running = 4}) == 4);
  CHECK(turns.note(&b, {.running = 0, .waiting_since = later}) == 0);
  CHECK(turns.note(&a, {.running = 2, .waiting_since = later + std::chrono::seconds(1)}) == 2);
  // One at a time, where others wait too.
  CHECK(turns.note(&b, {.running = 0, .waiting_since = later}) == 1);
  turns.leave(&a);
  CHECK(turns.note(&b, {.running = 1, .waiting_since = later}) == 4);
}

TEST_CASE("engines of one machine: none starves, and as many requests run as there are places") {
  Session one = open_fixture("smolvlm_tiny"), two = open_fixture("smolvlm_tiny");
  const auto prompts = golden_prompts(one, "smolvlm_tiny");
  GenerationOptions options = one.generation;
  options.max_new_tokens = 12;
  std::vector<Generation> wanted;
  for (const auto& prompt : prompts) wanted.push_back(generate(one, prompt, options));
  const auto turns = std::make_shared<EngineTurns>(2);
  Engine first(*one.generator, {.max_running = 2, .max_waiting = 200, .turns = turns});
  Engine second(*two.generator, {.max_running = 2, .max_waiting = 200, .turns = turns});
  // Far more than there are places, and then one of the other engine: it is not behind all of them.
  std::atomic<int> done{0};
  std::atomic<int> done_before{-1};
  std::atomic<std::int64_t> most{0};
  std::vector<std::unique_ptr<Collected>> callers;
  const auto submit = [&](Engine& engine, std::size_t i, auto on_done) {
    callers.push_back(std::make_unique<Collected>());
    EngineEvents events = callers.back()->events();
    events.on_started = [&] {
      most = std::max<std::int64_t>(most, first.stats().running + second.stats().running);
    };
    events.on_done = [tell = std::move(events.on_done), on_done](RequestAnswer answer) {
      on_done();
      tell(std::move(answer));
    };
    engine.submit(EngineRequest::of(prompts[i % prompts.size()], {.options = options}),
                  std::move(events));
  };
  for (std::size_t i = 0; i < 40; ++i) submit(first, i, [&] { ++done; });
  submit(second, 0, [&] { done_before = done.load(); });
  for (std::size_t i = 0; i < 10; ++i) submit(first, i, [&] { ++done; });
  for (std::size_t i = 0; i < callers.size(); ++i) {
    INFO(i);
    const std::size_t prompt = (i < 40 ? i : i == 40 ? 0 : i - 41) % prompts.size();
    check_same(callers[i]->wait().generations.at(0), wanted[prompt]);
  }
  CHECK(most <= 2);
  CHECK(done_before >= 0);
  CHECK(done_before <= 41);  // its turn came when those before it had theirs
}

}  // namespace
}  // namespace vlm::infer
