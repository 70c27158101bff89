#include "train/optimizer/schedule.h"

#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/catch.h"
#include "train/batches/data_plan.h"
#include "vlm/core/json.h"

namespace vlm::train {
namespace {

TEST_CASE("learning rates equal those of transformers' schedules") {
  const Json golden = load_json(fixture("smolvlm_tiny/train/golden.json"));
  std::int64_t compared = 0;
  for (const auto& [name, one] : golden["schedules"].items()) {
    INFO(name);
    std::string type = name;
    for (const char* known : {"linear", "cosine", "constant_with_warmup"}) {
      if (name.starts_with(known)) type = known;
    }
    const Schedule schedule{.type = type,
                            .learning_rate = golden["learning_rate"],
                            .warmup_steps = one["warmup_steps"],
                            .total_steps = golden["total_steps"]};
    const auto wanted = one["learning_rates"].get<std::vector<double>>();
    for (std::size_t step = 0; step < wanted.size(); ++step) {
      CHECK(schedule.at(static_cast<std::int64_t>(step)) == Approx(wanted[step]).epsilon(1e-12));
      ++compared;
    }
  }
  CHECK(compared >= 60);
}

TEST_CASE("restarts, waves and warm-up, stable, decay equal transformers'") {
  const Json golden = load_json(fixture("optimizers/schedules.json"));
  CHECK(golden["schedules"].size() == 6);
  for (const auto& [name, one] : golden["schedules"].items()) {
    INFO(name);
    const Json& options = one["options"];
    const Schedule schedule{.type = one["type"],
                            .learning_rate = golden["learning_rate"],
                            .warmup_steps = one["warmup_steps"],
                            .total_steps = golden["total_steps"],
                            .num_cycles = options.value("num_cycles", 0.0),
                            .num_decay_steps = options.value("num_decay_steps", 0),
                            .min_lr_ratio = options.value("min_lr_ratio", 0.0),
                            .warmup_type = options.value("warmup_type", "linear"),
                            .decay_type = options.value("decay_type", "cosine")};
    const auto wanted = one["learning_rates"].get<std::vector<double>>();
    REQUIRE(wanted.size() == 22);  // two steps behind the end
    for (std::size_t step = 0; step < wanted.size(); ++step) {
      INFO("step " << step);
      CHECK(schedule.at(static_cast<std::int64_t>(step)) ==
            Approx(wanted[step]).epsilon(1e-12).margin(1e-18));
    }
  }
}

TEST_CASE("every epoch is a new order of all samples") {
  const DataPlan plan({{.samples = 10, .steps = 8}}, 4, true, 5);
  std::vector<std::int64_t> epochs[2];
  for (std::int64_t step = 0; step < 6; ++step) {
    const StepPlan one = plan.at(step);
    CHECK(one.epoch == step / 3);
    CHECK(one.samples.size() == (step % 3 == 2 ? 2U : 4U));
    auto& epoch = epochs[step / 3];
    epoch.insert(epoch.end(), one.samples.begin(), one.samples.end());
  }
  CHECK(epochs[0] != epochs[1]);
  for (const auto& epoch : epochs) {
    CHECK(std::set<std::int64_t>(epoch.begin(), epoch.end()).size() == 10);
  }
  CHECK(plan.epoch_at(4) == Approx(1 + 1.0 / 3));
  const DataPlan again({{.samples = 10, .steps = 8}}, 4, true, 5);
  CHECK(again.at(4).samples == plan.at(4).samples);
  const DataPlan other({{.samples = 10, .steps = 8}}, 4, true, 6);
  CHECK(other.at(0).samples != plan.at(0).samples);
}

TEST_CASE("stages follow each other, and order can be that of the files") {
  const DataPlan plan({{.samples = 3, .steps = 2}, {.samples = 2, .steps = 3}}, 2, false, 0);
  CHECK(plan.total_steps() == 5);
  CHECK(plan.at(1).stage == 0);
  CHECK(plan.at(1).samples == std::vector<std::int64_t>{2});
  CHECK(plan.at(2).stage == 1);
  CHECK(plan.at(4).epoch == 2);
  CHECK(plan.at(4).samples == std::vector<std::int64_t>{0, 1});
}

TEST_CASE("samples of a group stay together, in an order of their own each epoch") {
  const std::vector<std::int64_t> groups = {0, 1, 0, 2, 1, 0, 3, 2};
  const DataPlan plan({{.samples = 8, .steps = 4, .groups = groups}}, 4, true, 7);
  std::vector<std::int64_t> epochs[2];
  for (std::int64_t step = 0; step < 4; ++step) {
    const auto samples = plan.at(step).samples;
    epochs[step / 2].insert(epochs[step / 2].end(), samples.begin(), samples.end());
  }
  CHECK(epochs[0] != epochs[1]);
  for (const auto& epoch : epochs) {
    CHECK(std::set<std::int64_t>(epoch.begin(), epoch.end()).size() == 8);
    std::set<std::int64_t> closed;
    for (std::size_t i = 1; i < epoch.size(); ++i) {
      const std::int64_t before = groups[static_cast<std::size_t>(epoch[i - 1])];
      const std::int64_t group = groups[static_cast<std::size_t>(epoch[i])];
      if (group != before) closed.insert(before);
      CHECK(closed.count(group) == 0);
    }
  }
}

TEST_CASE("samples of similar length meet, the longest in the first step") {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 400; ++i) lengths.push_back(i * 7919 % 1000 + 1);
  const StageSize size{.samples = 400, .steps = 100, .lengths = lengths};
  const DataPlan plan({size}, 4, true, 7);
  std::set<std::int64_t> seen;
  std::int64_t padded = 0, real = 0, longest_first = 0;
  for (std::int64_t step = 0; step < 100; ++step) {
    std::int64_t longest = 0;
    for (const std::int64_t i : plan.at(step).samples) {
      seen.insert(i);
      const std::int64_t length = lengths[static_cast<std::size_t>(i)];
      real += length;
      longest = std::max(longest, length);
    }
    if (step == 0) longest_first = longest;
    padded += longest * 4;
  }
  CHECK(seen.size() == 400);
  CHECK(longest_first == *std::max_element(lengths.begin(), lengths.end()));
  CHECK(static_cast<double>(padded) < 1.05 * static_cast<double>(real));
}

}  // namespace
}  // namespace vlm::train
