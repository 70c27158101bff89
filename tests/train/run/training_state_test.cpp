// Checkpoints: what a crash, a full disk or a damaged file leaves to go on from.
#include "train/run/training_state.h"

#include <ATen/ops/full.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/logged_lines.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

AdamW make_adam(double value, std::int64_t size = 64) {
  return AdamW({{"a.weight", at::full({size}, value)}, {"b.bias", at::full({3}, value + 1)}}, {});
}

const OrderedJson kStateConfig = {{"r", 8}, {"save_steps", 5}};

CheckpointWriter make_writer(const ScratchFolder& folder, std::int64_t limit = 2) {
  return {.output_dir = folder.path(), .config = kStateConfig, .save_total_limit = limit};
}

void save_steps(const CheckpointWriter& writer, std::int64_t last, std::int64_t best = -1) {
  for (std::int64_t step = 1; step <= last; ++step) {
    TrainingState state{.step = step, .best_step = best};
    writer.save(state, make_adam(static_cast<double>(step)));
  }
}

TEST_CASE("a checkpoint holds state, weights and optimizer, and old ones go") {
  const ScratchFolder folder;
  const CheckpointWriter writer = make_writer(folder);
  TrainingState state{.step = 7, .loss_since_log = 0.1 + 0.2, .steps_since_log = 3};
  state.samples_per_step = 16;
  state.best_step = 4;
  state.best_value = -1.25;
  state.evaluations_without_gain = 2;
  const AdamW saved = make_adam(5);
  saved.state()[0].second.fill_(0.5);
  writer.save(state, saved);
  AdamW loaded = make_adam(0);
  const auto found = find_checkpoint(folder.path());
  REQUIRE(found == folder.path() / "checkpoint-7");
  load_weights_and_optimizer(*found, loaded, {});
  for (std::size_t i = 0; i < saved.parameters().size(); ++i) {
    CHECK(loaded.parameters()[i].second.equal(saved.parameters()[i].second));
    CHECK(loaded.state()[i].second.equal(saved.state()[i].second));
  }
  TrainingState read = load_training_state(*found, kStateConfig);
  CHECK(write_fields(read.fields()) == write_fields(state.fields()));
  CHECK(read.loss_since_log == state.loss_since_log);  // to the last bit
  CHECK(find_checkpoint(folder.path() / "nowhere") == std::nullopt);
}

TEST_CASE("the limit counts the newest, and the best stays beyond it") {
  const ScratchFolder folder;
  save_steps(make_writer(folder), 12, /*best=*/2);
  CHECK(folder.names() ==
        std::vector<std::string>{"checkpoint-11", "checkpoint-12", "checkpoint-2"});
  clean_checkpoints(folder.path(), /*all=*/true);
  CHECK(folder.names().empty());
}

TEST_CASE("a checkpoint of the same step is the same one and stays") {
  const ScratchFolder folder;
  const CheckpointWriter writer = make_writer(folder);
  save_steps(writer, 1);
  const auto before = fs::last_write_time(folder.path() / "checkpoint-1/trained.safetensors");
  writer.save({.step = 1, .evaluated_step = 1}, make_adam(1));
  CHECK(fs::last_write_time(folder.path() / "checkpoint-1/trained.safetensors") == before);
  // What is known about the step since is taken over, and its digests stay.
  CHECK(load_training_state(folder.path() / "checkpoint-1", kStateConfig).evaluated_step == 1);
  CHECK(find_checkpoint(folder.path()) == folder.path() / "checkpoint-1");
  // Unless it was damaged.
  fs::resize_file(folder.path() / "checkpoint-1/trained.safetensors", 10);
  save_steps(writer, 1);
  CHECK(find_checkpoint(folder.path()) == folder.path() / "checkpoint-1");
}

TEST_CASE("a damaged checkpoint is named and the one before it is used") {
  const ScratchFolder folder;
  const auto damage = [&](const char* what) {
    clean_checkpoints(folder.path(), /*all=*/true);
    save_steps(make_writer(folder), 2);
    const fs::path newest = folder.path() / "checkpoint-2";
    const std::string kind = what;
    if (kind == "flipped") {
      std::fstream file(newest / "optimizer.safetensors",
                        std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(-3, std::ios::end);
      file.put('\x7f');
    }
    if (kind == "cut") fs::resize_file(newest / "trained.safetensors", 60);
    if (kind == "empty") fs::resize_file(newest / "trainer_state.json", 0);
    if (kind == "missing") fs::remove(newest / "trained.safetensors");
    const LoggedLines warnings(LogLevel::kWarning);
    CHECK(find_checkpoint(folder.path()) == folder.path() / "checkpoint-1");
    return warnings.text;
  };
  const std::string named = "checkpoint-2 is damaged and passed over: ";
  CHECK_THAT(damage("flipped"), Contains(named + "optimizer.safetensors isn't what was written"));
  CHECK_THAT(damage("cut"), Contains(named) && Contains("trained.safetensors"));
  CHECK_THAT(damage("empty"), Contains(named) && Contains("not valid JSON"));
  CHECK_THAT(damage("missing"), Contains(named) && Contains("can't open the file"));

  fs::remove(folder.path() / "checkpoint-1/trained.safetensors");
  const LoggedLines warnings(LogLevel::kWarning);
  CHECK_THROWS_WITH(find_checkpoint(folder.path()),
                    Contains("none of the checkpoints is whole: got checkpoint-2: ") &&
                        Contains("(--restart begins anew)"));
}

TEST_CASE("what an interrupted save or removal left is cleaned and never taken for whole") {
  const ScratchFolder folder;
  save_steps(make_writer(folder), 1);
  folder.write("saving-checkpoint-2/trained.safetensors", "half");
  folder.write("removing-checkpoint-0/trainer_state.json", "{}");
  folder.write("saving-my-notes/text", "mine");
  CHECK(find_checkpoint(folder.path()) == folder.path() / "checkpoint-1");
  clean_checkpoints(folder.path(), /*all=*/false);
  CHECK(folder.names() == std::vector<std::string>{"checkpoint-1", "saving-my-notes"});
}

TEST_CASE("a full disk is an error that keeps the last good checkpoint") {
  const ScratchFolder folder;
  const CheckpointWriter writer = make_writer(folder);
  writer.save({.step = 1}, make_adam(1));
  // A limit on files stands for the full disk: writing past it fails like ENOSPC does.
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit before = {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const struct rlimit small = {.rlim_cur = 100'000, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    writer.save({.step = 2}, make_adam(2, 100'000));
  } catch (const Error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  CHECK_THAT(message, Contains("checkpoint-2: can't save the checkpoint: got ") &&
                          Contains("trained.safetensors: can't write the file") &&
                          Contains("(the same command goes on from " + folder.at("checkpoint-1")));
  CHECK(folder.names() == std::vector<std::string>{"checkpoint-1"});
  CHECK(find_checkpoint(folder.path()) == folder.path() / "checkpoint-1");
}

TEST_CASE("another config is refused by its keys, but for those that may change") {
  const ScratchFolder folder;
  save_steps(make_writer(folder), 1);
  const fs::path checkpoint = folder.path() / "checkpoint-1";
  CHECK(load_training_state(checkpoint, {{"r", 8}, {"save_steps", 9}}).step == 1);
  CHECK_THROWS_WITH(load_training_state(checkpoint, {{"r", 4}, {"seed", 1}}),
                    Contains("the run to be resumed had another config: got other values of r, "
                             "seed"));
}

}  // namespace
}  // namespace vlm::train
