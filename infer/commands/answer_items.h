// What the commands that write rows have in common: they check options, answer items and report.
//
//   ItemList + BatchCommandOptions ─► answer_items ─► rows and journal (infer/batch), exit code
//
// No file is made or changed before options, inputs, outputs (none may replace an input), the
// journal's options, model and adapter have all been checked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "infer/batch/batch_runner.h"
#include "infer/commands/generation_flags.h"
#include "infer/commands/row_flags.h"
#include "infer/media/media_flags.h"
#include "infer/session.h"
#include "vlm/models/picture_cache.h"

namespace vlm::infer {

struct BatchCommandOptions {
  ModelChoice choice;
  std::vector<std::string> paths;
  std::vector<std::string> questions;
  std::string questions_file;
  std::optional<std::string> prompt;  // caption's; none: the rows' own, or the default
  std::string system;
  std::string output_format, order = "input", shard;
  GenerationFlags generation{.max_new_tokens = 64};
  FeatureCacheChoice features;
  RowLogOptions log;
  BatchOptions batch;
  VideoFlags video;
  RowFlags rows;
  bool by_segment = false;  // --ground, with the options below
  double segment_s = 10;
  std::string answer = "yes";
  std::string html;  // a page of the segments; empty: none
};

// The shard of --shard, else of the environment.
Shard choose_shard(const BatchCommandOptions& options);

// What is asked about the entries, and which columns the answers need.
ItemListOptions list_options(const BatchCommandOptions& options, const EntrySource& source);

// Answers the items that have no row yet and tells how it went; returns the exit code.
int answer_items(const std::string& command, const ItemList& items,
                 const BatchCommandOptions& options, const RuntimeOptions& runtime);

}  // namespace vlm::infer
