// What a run is said to take, against what it takes; and the steps that the loader makes.
#include "train/plan/run_plan.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/packing.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "train/batches/step_loader.h"
#include "train/batches/training_data.h"
#include "train/config/effective_config.h"
#include "train/plan/batch_sizes.h"
#include "train/plan/memory_meter.h"
#include "vlm/core/error.h"
#include "vlm/models/registry.h"

namespace vlm::train {
namespace {

// Eight questions about three pictures.
TrainConfig make_config(const std::filesystem::path& folder) {
  std::ofstream out(folder / "data.jsonl");
  const char* pictures[] = {"square.png", "wide.png", "tall.png"};
  for (int i = 0; i < 8; ++i) {
    const std::string picture = fixture(std::string("pictures/") + pictures[i % 3]).string();
    const std::string question = "What is this" + std::string(static_cast<std::size_t>(i), '?');
    const Json row = {
        {"messages",
         {{{"role", "user"},
           {"content", {{{"type", "image"}}, {{"type", "text"}, {"text", question}}}}},
          {{"role", "assistant"}, {"content", {{{"type", "text"}, {"text", "a thing"}}}}}}},
        {"images", {picture}}};
    out << row.dump() << "\n";
  }
  TrainConfig config;
  config.model_name_or_path = fixture(kTinyModel).string();
  config.output_dir = (folder / "out").string();
  config.train_files = {(folder / "data.jsonl").string()};
  config.per_device_train_batch_size = 4;
  config.num_train_epochs = 3;
  return config;
}

std::vector<StepData> load_all(const TrainConfig& config, const Processor& processor,
                               LoaderOptions options) {
  const TrainingData data = load_training_data(config, processor);
  data::SkippedSamples skipped;
  options.skipped = &skipped;
  StepLoader loader(*data.plan, data.datasets, processor, options, 0);
  std::vector<StepData> steps;
  for (std::int64_t i = 0; i < data.plan->total_steps(); ++i) steps.push_back(loader.next());
  return steps;
}

TEST_CASE("steps are the same whatever the number of threads") {
  const ScratchFolder folder;
  const TrainConfig config = make_config(folder.path());
  const auto processor = load_processor(fixture(kTinyModel));
  LoaderOptions options{.batch_size = 3};
  const auto one = load_all(config, *processor, options);
  options.workers = 5;
  const auto five = load_all(config, *processor, options);
  REQUIRE(one.size() == 6);
  REQUIRE(five.size() == 6);
  for (std::size_t i = 0; i < one.size(); ++i) {
    REQUIRE(one[i].batches.size() == 2);  // 3 samples and 1
    CHECK(one[i].sample_count == 4);
    CHECK(one[i].slot_count >= one[i].token_count);
    for (std::size_t b = 0; b < 2; ++b) {
      CHECK(one[i].batches[b].inputs.input_ids.equal(five[i].batches[b].inputs.input_ids));
      CHECK(one[i].batches[b].labels.equal(five[i].batches[b].labels));
    }
  }
}

TEST_CASE("sizes of samples and batches are those that the loader makes") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path());
  const auto processor = load_processor(fixture(kTinyModel));
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  const TrainingData data = load_training_data(config, *processor);
  const auto sizes = data::measure_samples(*data.datasets[0], *processor, {.threads = 2});
  for (const bool packing : {false, true}) {
    INFO("packing " << packing);
    config.packing = packing;
    config.max_tokens_per_batch = 250;
    LoaderOptions options{.batch_size = 4};
    if (packing) options.packing = {.max_tokens = 250};
    const auto steps = load_all(config, *processor, options);
    for (std::int64_t step = 0; step < data.plan->total_steps(); ++step) {
      std::vector<StepSample> samples;
      for (const std::int64_t i : data.plan->at(step).samples) {
        samples.push_back({.size = sizes[static_cast<std::size_t>(i)]});
      }
      const auto found = batch_sizes(samples, config);
      const auto& made = steps[static_cast<std::size_t>(step)].batches;
      REQUIRE(found.size() == made.size());
      for (std::size_t b = 0; b < made.size(); ++b) {
        CHECK(found[b].tokens == made[b].token_count);
        CHECK(found[b].slots == made[b].labels.numel());
        CHECK(found[b].labels == made[b].label_count);
        std::int64_t tiles = 0;
        for (const auto& pictures : made[b].pictures) tiles += pictures.units();
        CHECK(found[b].tiles == tiles);
      }
    }
  }
}

TEST_CASE("samples are measured as training takes them: rules, bounds, and bad ones passed over") {
  const ScratchFolder folder;
  const TrainConfig config = make_config(folder.path());
  const auto processor = load_processor(fixture(kTinyModel));
  const auto good = data::load_datasets(config.train_files, config.data_options());
  const auto sizes = data::measure_samples(*good, *processor, {});
  data::MeasureOptions all;
  all.encode.train_on = data::TrainOn::kAll;
  CHECK(data::measure_samples(*good, *processor, all)[0].labels > sizes[0].labels);

  std::ofstream(folder.path() / "data.jsonl", std::ios::app)
      << R"({"messages": [{"role": "user", "content": [{"type": "image"}]}], "images": ["gone.png"]})"
      << "\n";
  const auto broken = data::load_datasets(config.train_files, config.data_options());
  REQUIRE(broken->size() == good->size() + 1);
  CHECK_THROWS_WITH(data::measure_samples(*broken, *processor, {.threads = 2}),
                    Contains("data.jsonl:9") && Contains("gone.png"));
  const auto found =
      data::measure_samples(*broken, *processor, {.threads = 2, .max_bad_samples = 1});
  CHECK(found.back().tokens == sizes.front().tokens);  // the sample read in its place
  CHECK(found.front().tokens == sizes.front().tokens);
}

TEST_CASE("a plan counts the run's steps, tokens and memory") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path());
  const PlanOptions options{.runtime = {.device = "cpu", .threads = 1}, .memory_gb = 1000};
  const RunPlan plan = make_plan(config, options);
  CHECK(plan.samples == 8);
  CHECK(plan.steps == 6);
  CHECK(plan.fits());
  CHECK(plan.advice.empty());
  CHECK(plan.padding > 0);
  CHECK(plan.largest_tiles > 0);
  CHECK(plan.first_step_s >= plan.later_step_s);
  CHECK(plan.hours > 0);
  double sum = 0;
  for (const auto& [name, megabytes] : plan.memory_mb) {
    INFO(name);
    CHECK(megabytes >= 0);
    sum += megabytes;
  }
  CHECK(sum == Approx(plan.peak_mb));
  CHECK(plan.peak_mb > 20);
  CHECK(plan.to_json()["memory_mb"].size() == plan.memory_mb.size());
  CHECK_FALSE(std::filesystem::exists(config.output_dir));
}

TEST_CASE("the plan of several processes is of each, and of the whole run's steps") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path());
  config.per_device_train_batch_size = 2;
  config.gradient_accumulation_steps = 2;
  const RuntimeOptions runtime{.device = "cpu", .threads = 1};
  const RunPlan one = make_plan(config, {.runtime = runtime});
  config.gradient_accumulation_steps = 1;
  const RunPlan two = make_plan(config, {.runtime = runtime, .processes = 2});
  CHECK(two.processes == 2);
  CHECK(two.steps == one.steps);
  CHECK(two.tokens_per_epoch == Approx(one.tokens_per_epoch));
  CHECK(two.largest_tokens == one.largest_tokens);
  const auto part = [](const RunPlan& plan, const std::string& wanted) {
    for (const auto& [name, megabytes] : plan.memory_mb) {
      if (name == wanted) return megabytes;
    }
    return -1.0;
  };
  // Half of a step's pictures is read by each.
  CHECK(part(two, "pictures read ahead") < 0.8 * part(one, "pictures read ahead"));
  CHECK(part(two, "weights") == part(one, "weights"));
  CHECK_THAT(two.to_text(), Contains("memory of each of 2 processes, MB\n"));
  CHECK(two.to_json()["processes"] == 2);
}

TEST_CASE("what doesn't fit is told with what to change, before anything is trained") {
  const ScratchFolder folder;
  TrainConfig config = make_config(folder.path());
  config.memory_gb = 0.001;
  CHECK_THROWS_WITH(make_fit(config, {.device = "cpu", .threads = 1}),
                    Contains("memory_gb: the run doesn't fit the memory: got a peak of") &&
                        Contains("wanted at most 1 MB") &&
                        Contains("per_device_train_batch_size=1") &&
                        Contains("gradient_accumulation_steps=4"));
  config.memory_gb = 1000;
  const RunPlan plan = make_fit(config, {.device = "cpu", .threads = 1});
  CHECK_FALSE(config.gradient_checkpointing);
  const OrderedJson effective = effective_config(config);
  save_plan(plan, config.output_dir, effective);
  CHECK(planned_peak_mb(config.output_dir, effective) > 20);
  CHECK(planned_peak_mb(folder.at("none"), effective) == 0);
  // A plan of another run is no plan, nor is a file that someone wrote into.
  TrainConfig other = config;
  other.r = 4;
  CHECK(planned_peak_mb(config.output_dir, effective_config(other)) == 0);
  other = config;
  other.memory_gb = 7;
  other.seed = 7;
  CHECK(planned_peak_mb(config.output_dir, effective_config(other)) > 20);
  save_text(config.output_dir + "/plan.json", "[1");
  CHECK(planned_peak_mb(config.output_dir, effective) == 0);
}

TEST_CASE("the meter sees what tensors take at their peak, in forward and backward") {
  const at::Tensor x = at::ones({1000}).requires_grad_();
  const MemoryMeter meter;
  {
    const at::Tensor y = x * 2;
    CHECK(meter.peak_bytes() >= 4000);
    CHECK(meter.peak_bytes() < 6000);
    y.sum().backward();
  }
  CHECK(meter.held_bytes() >= 4000);  // the gradient
  CHECK(meter.held_bytes() < 6000);
  CHECK(meter.peak_bytes() >= 8000);
}

}  // namespace
}  // namespace vlm::train
