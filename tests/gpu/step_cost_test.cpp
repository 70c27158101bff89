// What a step of fine-tuning costs on the GPU: operators, waits, copies and memory, and what the
// plan says of it.
#include <nlohmann/json.hpp>

#include "tests/gpu/training.h"
#include "tests/support/simulated_cuda/device.h"
#include "train/batches/step_loader.h"
#include "train/batches/training_data.h"
#include "train/config/train_config.h"
#include "train/model/loss.h"
#include "train/plan/run_plan.h"
#include "vlm/models/registry.h"
#include "vlm/nn/upload.h"

namespace vlm {
namespace {

using simulated_cuda::DeviceCounts;

// What a further step costs: of two runs of different lengths the difference.
DeviceCounts cost_of_step(const Words& settings, const std::string& dtype = "float32") {
  const ScratchFolder folder;
  const auto run = [&](int steps) {
    Words words = settings;
    words.push_back("max_steps=" + std::to_string(steps));
    return counts_of([&] { fine_tune(folder, std::to_string(steps), "cuda", words, dtype); });
  };
  DeviceCounts cost = run(12) - run(4);
  for (std::int64_t* number : {&cost.operators, &cost.waits, &cost.uploads, &cost.downloads,
                               &cost.bytes_up, &cost.bytes_down, &cost.pageable}) {
    *number /= 8;
  }
  return cost;
}

void check_cost(const Words& settings, std::int64_t operators, std::int64_t waits,
                const std::string& dtype = "float32") {
  const DeviceCounts cost = cost_of_step(settings, dtype);
  CAPTURE(settings, dtype, cost.operators, cost.waits, cost.uploads, cost.downloads);
  CHECK(cost.operators <= operators);
  CHECK(cost.waits <= waits);
  CHECK(cost.pageable == 0);
}

// Bounds so that what was fused stays fused. The model has two layers in each tower.
TEST_CASE("what a step costs on the GPU") {
  check_cost({}, 276, 1);
  check_cost({"gradient_accumulation_steps=2"}, 573, 1);
  check_cost({"packing=true", "per_device_train_batch_size=4"}, 385, 1);
  check_cost({"method=qlora"}, 321, 1);
  check_cost({"optim=adamw_8bit", "r=64"}, 315, 1);
  check_cost({"method=full"}, 282, 1);
  check_cost({}, 274, 1, "bfloat16");
  check_cost({"method=qlora"}, 316, 1, "bfloat16");
  check_cost({"method=full"}, 397, 1, "bfloat16");
}

TEST_CASE("questions behind a picture have their masks once a pass, not once a layer") {
  const DeviceCounts cost =
      cost_of_step({"packing=true", "per_device_train_batch_size=4", "share_pictures=true"});
  CHECK(cost.operators <= 525);
  CHECK(cost.by_name.at("triu.out") == 8 * 4);  // in eight steps, of four questions each
}

TEST_CASE("a packed row in bfloat16 is one call of attention a layer") {
  for (const std::string share : {"share_pictures=true", "share_pictures=false"}) {
    INFO(share);
    const DeviceCounts cost =
        cost_of_step({"packing=true", "per_device_train_batch_size=4", share}, "bfloat16");
    CAPTURE(cost.operators, cost.uploads, cost.waits);
    CHECK(cost.by_name.at("_flash_attention_forward") == 8 * 2);  // in eight steps, of two layers
    CHECK(cost.by_name.at("_flash_attention_backward") == 8 * 2);
    CHECK(cost.by_name.count("triu.out") == 0);
    CHECK(cost.operators <= 277);
    CHECK(cost.waits <= 1);
  }
}

TEST_CASE("batches for the GPU lie in pinned memory, pictures in the dtype of the model") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  training_arguments(folder.path(), "out");
  const train::TrainConfig config =
      train::load_train_config(folder.at("config.json"), {"per_device_train_batch_size=2"});
  const auto processor = load_processor(config.model_name_or_path);
  const train::TrainingData data = train::load_training_data(config, *processor);
  data::SkippedSamples skipped;
  const auto load = [&](std::optional<at::ScalarType> dtype) {
    train::StepLoader loader(*data.plan, data.datasets, *processor,
                             {.batch_size = 2, .skipped = &skipped, .pinned_dtype = dtype}, 0);
    return loader.next().batches.at(0);
  };
  const data::Batch plain = load(std::nullopt), pinned = load(at::kBFloat16);
  CHECK_FALSE(plain.inputs.input_ids.is_pinned());
  CHECK(pinned.inputs.input_ids.is_pinned());
  CHECK(pinned.inputs.input_ids.equal(plain.inputs.input_ids));
  REQUIRE(pinned.pictures.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    const at::Tensor pixels = pinned.pictures[i].pixels.values;
    CHECK(pixels.is_pinned());
    CHECK(pixels.equal(plain.pictures[i].pixels.values.to(at::kBFloat16)));
    // Copying it is no wait, and makes no other copy on the host.
    const auto cost = counts_of([&] { upload(pixels, kGpu); });
    CHECK(cost.waits == 0);
    CHECK(cost.uploads == 1);
  }
}

Json plan_on(const std::string& device, const ScratchFolder& folder, const Words& settings) {
  Words words = training_arguments(folder.path(), "out", settings);
  words[0] = "plan";
  *(std::find(words.begin(), words.end(), "--device") + 1) = device;
  words.insert(words.end(), {"--format", "json", "--dtype", "float32"});
  return Json::parse(output_of(words));
}

TEST_CASE("the plan on the GPU has the CPU's weights and steps") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  const Words settings = {"feature_cache=off", "lora_dropout=0"};
  const Json host = plan_on("cpu", folder, settings), gpu = plan_on("cuda", folder, settings);
  for (const char* key : {"steps", "samples", "largest_batch_tokens", "largest_batch_tiles"}) {
    CHECK(gpu[key] == host[key]);
  }
  for (const char* part : {"weights", "adapters", "optimizer", "gradients"}) {
    CHECK(gpu["memory_mb"][part] == host["memory_mb"][part]);
  }
}

TEST_CASE("the plan on the GPU has two budgets, and memory_gb is that of the GPU") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  const Json host = plan_on("cpu", folder, {}), gpu = plan_on("cuda", folder, {});
  CHECK(host["device"] == "cpu");
  CHECK_FALSE(host.contains("host_memory_mb"));
  CHECK(host["memory_mb"].contains("program"));
  CHECK(gpu["device"] == "cuda:0");
  CHECK_FALSE(gpu["memory_mb"].contains("program"));
  CHECK(gpu["host_memory_mb"].size() == 2);
  CHECK(gpu["host_memory_mb"].contains("pictures read ahead"));
  const double on_host = gpu["host_peak_mb"], on_gpu = gpu["peak_mb"];
  CHECK(on_host == Approx(gpu["host_memory_mb"]["program"].get<double>() +
                          gpu["host_memory_mb"]["pictures read ahead"].get<double>())
                       .margin(0.2));
  // The program takes more of the host than the tiny model of the GPU.
  REQUIRE(on_gpu < on_host / 2);
  Words words = training_arguments(folder.path(), "out");
  words[0] = "plan";
  *(std::find(words.begin(), words.end(), "--device") + 1) = "cuda";
  const auto plan_in = [&](double gigabytes) {
    Words all = words;
    all.insert(all.end(), {"--memory-gb", std::to_string(gigabytes)});
    return run_here(all);
  };
  const ProgramResult fits = plan_in(1.5 * on_gpu / 1000);
  CHECK(fits.code == 0);
  CHECK_THAT(fits.out, Contains("memory of the GPU (cuda:0), MB\n") && Contains("  fits ") &&
                           Contains("memory of the host, MB\n"));
  const ProgramResult more = plan_in(0.5 * on_gpu / 1000);
  CHECK(more.code == 1);
  CHECK_THAT(more.err, Contains("memory_gb: the run doesn't fit the GPU's memory"));
}

// What the plan of folder/config.json says of the device, MB; not rounded, as in what `vlm plan`
// prints.
double planned_device_mb(const ScratchFolder& folder, const Words& settings) {
  const train::TrainConfig config = train::load_train_config(folder.at("config.json"), settings);
  const RuntimeOptions runtime = {.device = "cuda", .dtype = "float32", .threads = 1};
  return train::make_plan(config, {.runtime = runtime}).peak_mb;
}

TEST_CASE("a run takes of the GPU's memory what the plan says") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  for (const std::string method : {"lora", "dora", "qlora", "full"}) {
    INFO(method);
    const Words settings = {"method=" + method, "feature_cache=off", "lora_dropout=0"};
    training_arguments(folder.path(), "planned");
    const double planned = planned_device_mb(folder, settings);
    const std::int64_t before = simulated_cuda::current_bytes();
    simulated_cuda::reset_peak();
    fine_tune(folder, method, "cuda", settings);
    const double peak = static_cast<double>(simulated_cuda::peak_bytes() - before) / 1e6;
    // Tensors of the tiny model take half a megabyte; its NF4 weights are filled up to 16,384
    // values each, of which a probe of more tokens sees less.
    CHECK(peak == Approx(planned).margin(method == "qlora" ? 0.75 : 0.25));
  }
}

TEST_CASE("a label takes of the GPU's memory what the plan counts for it") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    INFO(dtype);
    const bool narrow = dtype == at::kBFloat16;
    const ModelPtr model =
        load_model(fixture(kTinyModel), {.dtype = narrow ? "bfloat16" : "float32", .device = kGpu});
    at::Tensor weight = model->output_head().named_parameters()["weight"];
    weight.set_requires_grad(false);  // its gradient is counted elsewhere
    const std::int64_t width = weight.size(1);
    const auto peak_of = [&](std::int64_t labels) {
      at::Tensor hidden = at::zeros({labels, width}, at::TensorOptions(dtype).device(kGpu));
      hidden.requires_grad_();
      const at::Tensor wanted = at::zeros({labels}, at::TensorOptions(at::kLong).device(kGpu));
      const std::int64_t before = simulated_cuda::current_bytes();
      simulated_cuda::reset_peak();
      train::head_loss_sum(*model, hidden, wanted);
      return simulated_cuda::peak_bytes() - before;
    };
    peak_of(1);  // what is made once
    const auto found = static_cast<double>(peak_of(256) - peak_of(128));
    const std::int64_t planned = 128 * train::head_bytes_per_label(model->vocab_size(), dtype);
    // Beside the logits a label has rows as wide as hidden, and a few numbers.
    const double beside = 128 * (4.0 * width * c10::elementSize(dtype) + 64);
    CHECK(found >= planned);
    CHECK(found <= planned + beside);
  }
}

TEST_CASE("without its products a run takes the same memory") {
  const ScratchFolder folder;
  write_questions(folder.path() / "data.jsonl", 4);
  const auto peak_of = [&](const std::string& method, const std::string& name) {
    const std::int64_t before = simulated_cuda::current_bytes();
    simulated_cuda::reset_peak();
    fine_tune(folder, method + name, "cuda", {"method=" + method, "max_steps=2"}, "bfloat16");
    return simulated_cuda::peak_bytes() - before;
  };
  for (const std::string method : {"lora", "qlora", "full"}) {
    INFO(method);
    const std::int64_t wanted = peak_of(method, " whole");
    simulated_cuda::skip_products(true);
    const std::int64_t found = peak_of(method, " skipped");
    simulated_cuda::skip_products(false);
    CHECK(static_cast<double>(found) == Approx(wanted).epsilon(0.01));
    CHECK(repeatable_metrics(folder.path() / (method + " whole"))[0]["loss"] !=
          repeatable_metrics(folder.path() / (method + " skipped"))[0]["loss"]);
  }
}

}  // namespace
}  // namespace vlm
