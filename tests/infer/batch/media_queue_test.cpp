// Media read ahead in threads: whatever is thrown in them, at any moment.
#include "infer/batch/media_queue.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/infer/sessions.h"
#include "tests/support/failing_processor.h"
#include "tests/support/thrown.h"
#include "vlm/core/concat.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

using namespace std::chrono_literals;

// One picture and question an entry.
class HookedSource : public EntrySource {
 public:
  HookedSource(std::int64_t size, std::function<void(std::int64_t)> hook)
      : size_(size), hook_(std::move(hook)) {}
  std::int64_t size() const override { return size_; }
  Entry at(std::int64_t index) const override {
    hook_(index);
    return {.id = concat(index),
            .media = {{.name = fixture("pictures/square.png").string()}},
            .question = "What?"};
  }
  void add_to(ListDigest&) const override {}

 private:
  std::int64_t size_;
  std::function<void(std::int64_t)> hook_;
};

struct Scene {
  ItemList items;
  Generator generator;
  MediaQueueOptions options{.workers = 3, .ahead = 4};

  explicit Scene(
      std::int64_t size, std::function<void(std::int64_t)> on_entry = [](auto) {},
      ProcessorHooks hooks = {})
      : items(std::make_unique<HookedSource>(size, std::move(on_entry)), {}),
        generator(load_model(fixture(kTinyModel), {.dtype = "float32"}),
                  std::make_unique<FailingProcessor>(load_processor(fixture(kTinyModel)),
                                                     std::move(hooks))) {}

  MediaQueue queue(std::vector<bool> done = {}) {
    done.resize(static_cast<std::size_t>(items.items()));
    return MediaQueue(generator, items, std::move(done), options);
  }
};

TEST_CASE("groups come in order, without those that are done or another shard's") {
  Scene scene(9);
  scene.options.shard = {.index = 1, .count = 2};
  MediaQueue queue = scene.queue({false, true, false, false, false, true});
  std::vector<std::int64_t> found;
  while (const auto group = queue.next()) {
    REQUIRE(group->items.size() == 1);
    CHECK(group->items[0].error.empty());
    CHECK_FALSE(group->items[0].prompt.empty());
    found.push_back(group->items[0].item.ordinal);
  }
  CHECK(found == std::vector<std::int64_t>{3, 7});
  CHECK(queue.is_ready());
  CHECK_FALSE(queue.next());
}

TEST_CASE("what reading a picture or its prompt throws is its item's error") {
  for (const bool is_picture : {true, false}) {
    std::atomic<int> calls = 0;
    const auto fail_once = [&] {
      if (calls++ == 2) throw std::bad_alloc();
    };
    ProcessorHooks hooks;
    (is_picture ? hooks.on_picture : hooks.on_prompt) = fail_once;
    Scene scene(
        5, [](auto) {}, std::move(hooks));
    scene.options.workers = 1;
    MediaQueue queue = scene.queue();
    std::vector<bool> has_error;
    while (const auto group = queue.next()) has_error.push_back(!group->items[0].error.empty());
    CHECK(has_error == std::vector<bool>{false, false, true, false, false});
  }
}

TEST_CASE("what opening an entry throws is its error; what is no exception comes in order") {
  for (const auto& [text, fail] : kThrows) {
    Scene scene(8, [&fail = fail](std::int64_t index) {
      if (index == 3) fail();
    });
    MediaQueue queue = scene.queue();
    for (std::int64_t i = 0; i < 3; ++i) CHECK(queue.next()->items[0].item.ordinal == i);
    if (text == "7") {
      for (int again = 0; again < 3; ++again) CHECK(thrown_by([&] { queue.next(); }) == text);
      CHECK(queue.is_ready());
      continue;
    }
    CHECK_FALSE(queue.next()->items[0].error.empty());
    for (std::int64_t i = 4; i < 8; ++i) CHECK(queue.next()->items[0].error.empty());
    CHECK_FALSE(queue.next());
  }
}

TEST_CASE("the queue can go at any moment, and reads a bounded number of groups ahead") {
  for (int taken = 0; taken < 6; ++taken) {
    std::atomic<int> inside = 0, opened = 0;
    Scene scene(20, [&](auto) {
      ++inside;
      ++opened;
      std::this_thread::sleep_for(1ms);
      --inside;
    });
    {
      MediaQueue queue = scene.queue();
      for (int i = 0; i < taken; ++i) queue.next();
      std::this_thread::sleep_for(taken % 2 == 0 ? 0ms : 15ms);
      CHECK(opened <= taken + 4);
    }
    CHECK(inside == 0);
  }
}

}  // namespace
}  // namespace vlm::infer
