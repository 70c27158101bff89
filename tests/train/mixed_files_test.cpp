// Runs on files that are mixed with weights and hold samples that are passed over: what is learned,
// what is told of them, and that going on from a checkpoint changes nothing.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "train/trainer.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"

namespace vlm::train {
namespace {

TrainConfig make_config(const ScratchFolder& folder) {
  const std::string picture = fixture("pictures/square.png").string();
  std::string rows, csv = "question,answer\n";
  for (int i = 0; i < 7; ++i) {
    rows += R"({"query":"what )" + std::to_string(i) + R"(?","response":"one","image":")" +
            (i == 2 ? "none.png" : picture) + "\"" + (i == 4 ? "," : "") + "}\n";
    csv += "count " + std::to_string(i) + "," + (i == 5 ? std::string(400, 'x') : "two") + "\n";
  }
  TrainConfig config;
  config.model_name_or_path = fixture("smolvlm_tiny").string();
  config.output_dir = folder.at("out");
  config.train_files = {Json{{"path", folder.write("a.jsonl", rows)}, {"weight", 2}},
                        Json{{"path", folder.write("b.csv", csv)}, {"weight", 0.6}}};
  config.max_bad_samples = 2;
  config.max_length = 100;
  config.length_policy = "skip";
  config.per_device_train_batch_size = 3;
  config.max_steps = 12;
  config.learning_rate = 1e-2;
  config.logging_steps = 1;
  config.save_steps = 6;
  config.dataloader_num_workers = 3;
  return config;
}

const TrainOptions kOnOneThread = {.runtime = {.device = "cpu", .threads = 1}};

TEST_CASE("a mixture with samples to pass over goes on from a checkpoint bit by bit") {
  const ScratchFolder folder;
  set_log_level(LogLevel::kOff);
  const TrainConfig config = make_config(folder);
  const std::string weights = folder.at("out/adapter_model.safetensors");
  Trainer(config, kOnOneThread).run();
  const std::string whole = load_text(weights);
  const std::string skipped = load_text(folder.at("out/skipped_samples.jsonl"));
  std::filesystem::remove_all(folder.at("out/checkpoint-12"));
  Trainer(config, kOnOneThread).run();
  set_log_level(LogLevel::kInfo);
  CHECK(load_text(weights) == whole);
  CHECK(load_text(folder.at("out/skipped_samples.jsonl")) == skipped);
  CHECK_THAT(skipped, Contains(folder.at("a.jsonl") + R"(:3","kind":"bad")") &&
                          Contains(folder.at("a.jsonl") + R"(:5","kind":"bad")") &&
                          Contains(folder.at("b.csv") + R"(:7","kind":"long")"));
}

TEST_CASE("more bad samples than allowed end the run") {
  const ScratchFolder folder;
  set_log_level(LogLevel::kOff);
  TrainConfig config = make_config(folder);
  config.max_bad_samples = 1;
  CHECK_THROWS_WITH(Trainer(config, kOnOneThread).run(),
                    Contains("too many bad samples: got 2, wanted at most max_bad_samples = 1"));
  set_log_level(LogLevel::kInfo);
}

}  // namespace
}  // namespace vlm::train
