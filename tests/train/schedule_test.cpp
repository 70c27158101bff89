#include "train/schedule.h"

#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/catch.h"
#include "train/data_plan.h"
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

}  // namespace
}  // namespace vlm::train
