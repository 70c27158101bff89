// A folder that a fine-tuning wrote, and what of it can be served.
//
//   folder ─► find_tuned ─► an adapter, or a whole model          (a result, one checkpoint)
//   folder of a run ─► list_checkpoints ─► those of its checkpoints, the newest first
//
// Checkpoints are written beside their place and renamed, so one that has its name and its state is
// whole. transformers' Trainer writes in place, and the state last.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace vlm::infer {

struct TunedFolder {
  std::filesystem::path path;
  bool is_whole = false;  // a model of its own; else an adapter
  std::string stamp;      // another one for what was written later, under the same name too
};

// Throws Error for a folder that is neither.
TunedFolder find_tuned(const std::filesystem::path& folder);

// Where a run has no checkpoints, its result. Empty: there is nothing yet.
std::vector<TunedFolder> list_checkpoints(const std::filesystem::path& run);

}  // namespace vlm::infer
