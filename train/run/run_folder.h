// output_dir: one run at a time writes there, and what it finds there is its own past or is moved
// out of its way.
//
//   output_dir ─► RunFolder (locked) ─► begin ─► what others left in earlier-N; train_config.json,
//   inputs.json
//
// A run goes on from its newest checkpoint, or from its start when it had none yet; the files of
// its past then stay. Anything else that bears a name which a run writes, or that would be loaded
// together with its result, is set aside: a report never shows another run's figures. Files that
// the run reads are neither moved nor written over: that is an Error before anything is changed.
#pragma once

#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "data/dataset.h"
#include "train/config/train_config.h"
#include "train/run/run_inputs.h"
#include "vlm/io/file_lock.h"

namespace vlm::train {

// Moves these entries of the folder into its new sub-folder earlier-N, and says so in a warning.
void set_aside(const std::filesystem::path& folder, const std::vector<std::string>& names);

// Names of the folder's entries that belong to an adapter, or to a model with its weights, in any
// format: what must not lie beside a new result.
std::vector<std::string> find_results(const std::filesystem::path& folder);

// Throws Error when the result in `folder` would take the place of `path`, which is read: where
// it, or what it links to, is the folder itself or lies in it below one of `names`.
void check_is_kept(const std::filesystem::path& path, const std::filesystem::path& folder,
                   const std::vector<std::string>& names);

struct RunStart {
  const TrainConfig& config;
  const OrderedJson& effective_config;
  std::filesystem::path model;  // folder of the base
  std::vector<const data::Dataset*> datasets;
  std::filesystem::path config_file = {};  // empty: none
  std::filesystem::path checkpoint = {};   // that the run goes on from; empty: none
  bool restart = false;                    // checkpoints are removed
  bool has_plan = false;                   // plan.json is of this run
};

class RunFolder {
 public:
  // Makes the folder and takes its lock. Throws Error when another program has it.
  explicit RunFolder(const std::filesystem::path& output_dir);

  // Throws Error, with everything as it was, when the run isn't the one that it would go on with,
  // or would write over what it reads.
  void begin(const RunStart& start);

  // With digests, which are taken beside the first steps. Waits some seconds for them; files that
  // aren't read by then are compared by their stamps alone.
  const InputFiles& inputs();

 private:
  std::vector<std::string> find_others(const RunStart& start, bool goes_on) const;
  void check_reads(const RunStart& start, std::vector<std::string> names) const;
  bool is_same_beginning(const RunStart& start);
  void read_inputs();
  void save_inputs() const;

  FolderLock lock_;
  std::filesystem::path path_;
  InputFiles inputs_;
  std::future<InputFiles> digested_;
  std::jthread reader_;  // stops and is waited for when the folder is let go
};

}  // namespace vlm::train
