// Which part of the items this process answers: as --shard says, or as torchrun or Slurm say in the
// environment.
//
// Group g of the items (one picture with its questions) belongs to shard g mod count. Each shard
// writes its own output file; `vlm gather` joins them.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "infer/batch/journal.h"

namespace vlm::infer {

// "2/8": the third of eight. Throws Error for anything else.
Shard parse_shard(const std::string& text);

// A variable's value, or nothing.
using Environment = std::function<std::optional<std::string>(const std::string&)>;
Environment process_environment();

struct FoundShard {
  Shard shard;
  std::string source;  // the variables it comes from; empty: none
};

// A Slurm array (SLURM_ARRAY_TASK_ID with _MIN, _MAX, _STEP) times the tasks inside of it: those of
// torchrun (RANK, WORLD_SIZE) or else of srun (SLURM_PROCID, SLURM_NTASKS). Throws Error for
// variables that contradict each other.
FoundShard find_shard(const Environment& environment);

// "rows.jsonl" → "rows.shard-2-of-8.jsonl"; unchanged when there is only one shard.
std::filesystem::path shard_output(const std::filesystem::path& output, const Shard& shard);

}  // namespace vlm::infer
