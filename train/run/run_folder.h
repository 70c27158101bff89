// output_dir: one run at a time writes there, and files of other runs are moved out of its way.
//
//   output_dir ─► RunFolder (locked) ─► begin ─► files of other runs in earlier-N;
//   train_config.json, inputs.json
//
// A run resumes from its newest checkpoint, or starts again when it has none yet; its own earlier
// files stay. Other files are moved to earlier-N if they have a name that a run writes, or would be
// loaded together with its result, so that a report never shows another run's figures. If a file
// that the run reads would be moved or overwritten, that is an Error before anything is changed.
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
// format; they must not lie beside a new result.
std::vector<std::string> find_results(const std::filesystem::path& folder);

// Throws Error when writing a result into `folder` would replace `path`, which is read: when
// `path`, or the target of a link in it, is the folder itself or lies in it below one of `names`.
void check_is_kept(const std::filesystem::path& path, const std::filesystem::path& folder,
                   const std::vector<std::string>& names);

struct RunStart {
  const TrainConfig& config;
  const OrderedJson& effective_config;
  std::filesystem::path model;  // folder of the base
  std::vector<const data::Dataset*> datasets;
  std::filesystem::path config_file = {};  // empty: none
  std::filesystem::path checkpoint = {};   // that the run resumes from; empty: none
  bool restart = false;                    // checkpoints are removed
  bool has_plan = false;                   // plan.json belongs to this run
};

class RunFolder {
 public:
  // Makes the folder and takes its lock. Throws Error when another program has it.
  explicit RunFolder(const std::filesystem::path& output_dir);

  // Prepares the folder for the run. Throws Error, before anything is changed, when the folder's
  // checkpoints belong to another run, or the run would overwrite a file that it reads.
  void begin(const RunStart& start);

  // The input files with their digests, which are computed during the first steps. Waits some
  // seconds for them; files without a digest by then are compared by their stamps alone.
  const InputFiles& inputs();

 private:
  std::vector<std::string> find_foreign_files(const RunStart& start, bool goes_on) const;
  void check_reads(const RunStart& start, std::vector<std::string> names) const;
  bool is_same_beginning(const RunStart& start);
  void read_inputs();
  void save_inputs() const;

  FolderLock lock_;
  std::filesystem::path path_;
  InputFiles inputs_;
  std::future<InputFiles> digested_;
  std::jthread reader_;  // stopped and joined by the destructor
};

}  // namespace vlm::train
