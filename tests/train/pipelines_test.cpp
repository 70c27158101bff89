// Samples read in threads, for steps, sizes and surveys: whatever is thrown in them, at any moment.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <pthread.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <set>
#include <thread>

#include "data/dataset.h"
#include "data/sample_size.h"
#include "tests/support/failing_processor.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/small_training.h"
#include "tests/support/thrown.h"
#include "train/batches/step_loader.h"
#include "train/inspect/survey.h"
#include "vlm/core/error.h"
#include "vlm/models/registry.h"

namespace {

// Which allocation finds no memory, of those of threads with that name.
std::atomic<const char*> g_poor_thread = nullptr;
std::atomic<int> g_allocations_left = 0;

bool finds_no_memory() {
  const char* poor = g_poor_thread.load();
  if (poor == nullptr) return false;
  std::array<char, 16> name = {};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return std::strcmp(name.data(), poor) == 0 && g_allocations_left-- == 0;
}

}  // namespace

// In place of the library's, in this program.
void* operator new(std::size_t size) {
  void* found = finds_no_memory() ? nullptr : std::malloc(std::max<std::size_t>(size, 1));
  if (found == nullptr) throw std::bad_alloc();
  return found;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return finds_no_memory() ? nullptr : std::malloc(std::max<std::size_t>(size, 1));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace vlm::train {
namespace {

using namespace std::chrono_literals;

struct EndOfMemory {
  EndOfMemory(const char* thread, int at) {
    g_allocations_left = at;
    g_poor_thread = thread;
  }
  ~EndOfMemory() { g_poor_thread = nullptr; }
};

constexpr std::int64_t kSampleCount = 11, kSamplesAStep = 4, kStepCount = 3;

class HookedDataset : public data::Dataset {
 public:
  HookedDataset(std::unique_ptr<data::Dataset> inner, std::function<void(std::int64_t)> hook)
      : inner_(std::move(inner)), hook_(std::move(hook)) {}
  std::int64_t size() const override { return inner_->size(); }
  data::Sample at(std::int64_t index) const override {
    hook_(index);
    return inner_->at(index);
  }
  std::string where(std::int64_t index) const override { return inner_->where(index); }

 private:
  std::unique_ptr<data::Dataset> inner_;
  std::function<void(std::int64_t)> hook_;
};

// Eleven questions in three steps of four, the last one short.
struct Scene {
  ScratchFolder folder;
  DataPlan plan{
      {{.samples = kSampleCount, .steps = kStepCount}}, kSamplesAStep, /*shuffle=*/false, 1};
  std::vector<std::unique_ptr<data::Dataset>> datasets;
  FailingProcessor processor;
  data::SkippedSamples skipped;
  LoaderOptions options{.batch_size = 2, .workers = 3, .skipped = &skipped};

  explicit Scene(
      ProcessorHooks hooks, std::function<void(std::int64_t)> on_sample = [](auto) {})
      : processor(load_processor(fixture(kTinyModel)), std::move(hooks)) {
    write_questions(folder.path() / "data.jsonl", kSampleCount);
    datasets.push_back(std::make_unique<HookedDataset>(
        data::load_dataset(folder.path() / "data.jsonl", {}), std::move(on_sample)));
  }

  StepLoader loader() { return StepLoader(plan, datasets, processor, options, 0); }
};

TEST_CASE("whatever reading a sample throws, the training loop gets in its step, and again") {
  for (const auto& [text, fail] : kThrows) {
    for (const std::int64_t workers : {1, 4}) {
      for (const std::int64_t bad : {0, 5, 10}) {
        Scene scene({}, [&fail = fail, bad](std::int64_t index) {
          if (index == bad) fail();
        });
        scene.options.workers = workers;
        StepLoader loader = scene.loader();
        for (std::int64_t step = 0; step < bad / kSamplesAStep; ++step) {
          CHECK(loader.next().sample_count == kSamplesAStep);
        }
        for (int again = 0; again < 3; ++again) {
          CHECK(thrown_by([&] { loader.next(); }) == text);
        }
      }
    }
  }
}

TEST_CASE("where memory ends in a thread, the training loop gets that, or all of its steps") {
  for (const char* name : {"vlm samples", "vlm batches"}) {
    bool has_failed = false;
    for (const int at : {0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89}) {
      INFO(name << ", allocation " << at);
      Scene scene({});
      scene.options.workers = 1;
      std::int64_t steps = 0;
      std::string told;
      {
        const EndOfMemory end(name, at);
        StepLoader loader = scene.loader();
        told = thrown_by([&] {
          for (; steps < kStepCount; ++steps) loader.next();
        });
        if (!told.empty()) CHECK(thrown_by([&] { loader.next(); }) == told);
      }
      CHECK((told == "bad_alloc" || steps == kStepCount));
      has_failed = has_failed || !told.empty();
    }
    CHECK(has_failed);
  }
}

TEST_CASE("of several bad samples the first is told, though it takes the longest") {
  Scene scene({}, [](std::int64_t index) {
    if (index == 1) std::this_thread::sleep_for(30ms);
    if (index == 1 || index == 3) throw std::runtime_error("sample " + std::to_string(index));
  });
  StepLoader loader = scene.loader();
  CHECK(thrown_by([&] { loader.next(); }) == "sample 1");
}

TEST_CASE("behind the last step there is an error, not a wait") {
  Scene scene({});
  StepLoader loader = scene.loader();
  CHECK(loader.next().sample_count == 4);
  CHECK(loader.next().sample_count == 4);
  CHECK(loader.next().sample_count == 3);
  for (int again = 0; again < 2; ++again) {
    CHECK_THROWS_WITH(loader.next(), "training data: no step is left");
  }
}

TEST_CASE("a process without samples in a step takes part in it") {
  Scene scene({});
  scene.options.batch_size = 1;
  scene.options.ranks = 4;
  for (std::int64_t rank = 0; rank < 4; ++rank) {
    scene.options.rank = rank;
    StepLoader loader = scene.loader();
    for (std::int64_t step = 0; step < kStepCount; ++step) {
      const StepData data = loader.next();
      const bool has_none = step == 2 && rank == 3;
      CHECK(data.sample_count == (step == 2 ? 3 : 4));
      CHECK(data.batches.size() == (has_none ? 0 : 1));
    }
  }
}

TEST_CASE("the loader can go at any moment") {
  for (int taken = 0; taken <= kStepCount; ++taken) {
    for (const auto pause : {0ms, 3ms, 20ms}) {
      std::atomic<int> inside = 0;
      Scene scene({}, [&](std::int64_t) {
        ++inside;
        std::this_thread::sleep_for(2ms);
        --inside;
      });
      {
        StepLoader loader = scene.loader();
        for (int i = 0; i < taken; ++i) loader.next();
        std::this_thread::sleep_for(pause);
      }
      CHECK(inside == 0);
    }
  }
}

TEST_CASE("samples are read two steps ahead and no further") {
  std::atomic<std::int64_t> furthest = -1;
  Scene scene({}, [&](std::int64_t index) { furthest = std::max(furthest.load(), index); });
  scene.options.batch_size = kSamplesAStep;
  StepLoader loader = scene.loader();
  while (furthest < 7) std::this_thread::sleep_for(1ms);
  std::this_thread::sleep_for(30ms);
  CHECK(furthest == 7);
  loader.next();
  while (furthest < 10) std::this_thread::sleep_for(1ms);
}

TEST_CASE("the threads that read are one each, and leave the program's threads alone") {
  const int before = at::get_num_threads();
  at::set_num_threads(before + 1);
  std::mutex mutex;
  std::set<int> seen;
  Scene scene({.on_picture = [&] {
    const std::lock_guard lock(mutex);
    seen.insert(at::get_num_threads());
  }});
  StepLoader loader = scene.loader();
  loader.next();
  CHECK(seen == std::set<int>{1});
  CHECK(at::get_num_threads() == before + 1);
  std::thread([&] { CHECK(at::get_num_threads() == before + 1); }).join();
  at::set_num_threads(before);
}

TEST_CASE("whatever measuring a sample throws that is no error of the sample ends it") {
  for (const auto& [text, fail] : kThrows) {
    for (const std::int64_t threads : {1, 4}) {
      Scene scene({}, [&fail = fail](std::int64_t index) {
        if (index == 7) fail();
      });
      const data::MeasureOptions options{.threads = threads, .max_bad_samples = 100};
      CHECK(thrown_by([&] {
              data::measure_samples(*scene.datasets[0], scene.processor, options);
            }) == text);
    }
  }
}

TEST_CASE("the first of too many bad samples is told, whatever the number of threads") {
  for (const std::int64_t threads : {1, 4}) {
    Scene scene({}, [](std::int64_t index) {
      if (index == 2) std::this_thread::sleep_for(20ms);
      if (index % 4 == 2) throw Error({.what = "no sample", .where = std::to_string(index)});
    });
    data::MeasureOptions options{.threads = threads, .max_bad_samples = 2};
    const auto measure = [&] {
      return data::measure_samples(*scene.datasets[0], scene.processor, options);
    };
    CHECK(thrown_by([&] { measure(); }) == "2: no sample");
    options.max_bad_samples = 3;
    CHECK(measure().size() == kSampleCount);
  }
}

TEST_CASE("whatever looking at a sample throws ends a survey; no number of threads changes one") {
  for (const auto& [text, fail] : kThrows) {
    Scene scene({}, [&fail = fail](std::int64_t index) {
      if (index == 9) fail();
    });
    CHECK(thrown_by([&] { survey_dataset(*scene.datasets[0], scene.processor, {}, 3); }) == text);
  }
  Scene scene({});
  const Survey one = survey_dataset(*scene.datasets[0], scene.processor, {}, 1);
  const Survey many = survey_dataset(*scene.datasets[0], scene.processor, {}, 5);
  CHECK(one.samples == kSampleCount);
  CHECK(one.is_whole);
  CHECK(many.is_whole);
  CHECK(one.lengths == many.lengths);
  CHECK(one.longest == many.longest);
}

}  // namespace
}  // namespace vlm::train
