// What the commands that write rows do alike: options checked, items answered, the run told about.
//
//   ItemList + BatchCommandOptions ─► answer_items ─► rows and journal (infer/batch), exit code
//
// Nothing is made or changed before everything that could be refused is there: options, inputs,
// outputs that replace no input, the journal's options, model and adapter.
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
  bool by_segment = false;  // the rest is of --ground
  double segment_s = 10;
  std::string answer = "yes";
  std::string html;  // a page of the segments; empty: none
};

// Of --shard, or of the environment.
Shard choose_shard(const BatchCommandOptions& options);

// What the items' rows have beside the input's columns.
ItemListOptions list_options(const BatchCommandOptions& options, const EntrySource& source);

// Answers the items that have no row yet and tells how it went; returns the exit code.
int answer_items(const std::string& command, const ItemList& items,
                 const BatchCommandOptions& options, const RuntimeOptions& runtime);

}  // namespace vlm::infer
